"""The installation's CA: made once, kept, never silently replaced."""

import datetime
import ssl
import stat
import threading
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from llmop.channel import certificates
from llmop.domain import errors

NOW = 1_760_000_000.0


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tls"


def ensure(tls: Path, now: float) -> tuple[str, Path, Path]:
    """Everything in one directory, as without --tls-dir."""
    return certificates.ensure(tls, tls, now)


def test_the_ca_is_made_once_and_kept_over_restarts(tls: Path) -> None:
    first, certificate, key = ensure(tls, NOW)
    server = certificate.read_bytes()
    second, certificate, key = ensure(tls, NOW + 86_400)
    assert first == second
    assert server != certificate.read_bytes()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    x509.load_pem_x509_certificate(certificate.read_bytes()).verify_directly_issued_by(
        x509.load_pem_x509_certificate(second.encode())
    )


def test_nobody_else_can_read_what_is_made(tls: Path) -> None:
    ensure(tls, NOW)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [tls, *tls.iterdir()]}
    names = ("ca.key", "ca.pem", "listener.key", "listener.pem")
    assert {"tls": 0o700, **dict.fromkeys(names, 0o600)} == modes


def test_nodes_whose_clock_is_behind_trust_it(tls: Path) -> None:
    _, certificate, _ = ensure(tls, NOW)
    for path in (certificate, tls / "ca.pem"):
        made = x509.load_pem_x509_certificate(path.read_bytes())
        at = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
        assert datetime.timedelta(hours=23) < at - made.not_valid_before_utc
        assert datetime.timedelta(days=3000) < made.not_valid_after_utc - at


def test_a_start_that_was_cut_short_before_the_certificate_is_done_again(tls: Path) -> None:
    ensure(tls, NOW)
    for name in ("ca.pem", "listener.pem", "listener.key"):
        (tls / name).unlink()
    key = (tls / "ca.key").read_bytes()
    ca, _, _ = ensure(tls, NOW)
    assert ca == (tls / "ca.pem").read_text()
    assert key == (tls / "ca.key").read_bytes()
    assert {"ca.key", "ca.pem", "listener.key", "listener.pem"} == {path.name for path in tls.iterdir()}


def other_key(path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))


def foreign_key(path: Path) -> None:
    elsewhere = path.parent / "elsewhere"
    ensure(elsewhere, NOW)
    path.write_bytes((elsewhere / "ca.key").read_bytes())


def encrypted_key(path: Path) -> None:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(encoding, form, serialization.BestAvailableEncryption(b"secret")))


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("ca.pem", lambda path: path.write_bytes(b""), "is no certificate"),
        ("ca.pem", lambda path: path.write_bytes(path.read_bytes()[:100]), "is no certificate"),
        ("ca.key", lambda path: path.unlink(), "is missing"),
        ("ca.key", lambda path: path.write_bytes(b"\x00\xff"), "is no private key"),
        ("ca.key", encrypted_key, "is no private key"),
        ("ca.key", other_key, "is the key of something else"),
        ("ca.key", foreign_key, "is not the key of"),
        ("ca.key", lambda path: path.chmod(0o640), "can be read or changed by others"),
    ],
    ids=["empty", "cut", "no key", "garbage", "encrypted", "another kind", "another CA's", "open to others"],
)
def test_a_broken_file_is_named_and_nothing_is_replaced(
    tls: Path, name: str, damage: Callable[[Path], object], expected: str
) -> None:
    ensure(tls, NOW)
    damage(tls / name)
    before = {path.name: path.read_bytes() for path in tls.iterdir() if path.is_file()}
    with pytest.raises(errors.NeedsUser, match=f"{tls / name} {expected}"):
        ensure(tls, NOW)
    assert before == {path.name: path.read_bytes() for path in tls.iterdir() if path.is_file()}


def test_controllers_with_directories_of_their_own_share_one_authority(tmp_path: Path) -> None:
    first, first_certificate, _ = certificates.ensure(tmp_path / "shared", tmp_path / "a", NOW)
    second, second_certificate, _ = certificates.ensure(tmp_path / "shared", tmp_path / "b", NOW)
    assert first == second
    ca = x509.load_pem_x509_certificate(first.encode())
    for path in (first_certificate, second_certificate):
        x509.load_pem_x509_certificate(path.read_bytes()).verify_directly_issued_by(ca)
    assert {"ca.key", "ca.pem"} == {path.name for path in (tmp_path / "shared").iterdir()}
    assert {"listener.key", "listener.pem"} == {path.name for path in (tmp_path / "b").iterdir()}


def test_many_that_start_at_once_get_the_same_authority(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def start(number: int) -> str:
        together.wait(20)
        return certificates.ensure(tmp_path / "shared", tmp_path / str(number), NOW)[0]

    with futures.ThreadPoolExecutor(8) as pool:
        found = set(pool.map(start, range(8)))
    assert {(tmp_path / "shared/ca.pem").read_text()} == found
    assert {"ca.key", "ca.pem"} == {path.name for path in (tmp_path / "shared").iterdir()}


def test_an_authority_that_others_may_reach_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o700)
    shared.chmod(0o750)
    with pytest.raises(
        errors.NeedsUser, match=rf"{shared}: others may enter it \(mode 0750\); run: chmod 700"
    ):
        certificates.ensure(shared, tmp_path / "own", NOW)
    assert [] == list(shared.iterdir())


def test_an_authority_of_another_account_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o700)
    owner = shared.stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    with pytest.raises(errors.NeedsUser, match=f"{shared}: belongs to user id {owner}, not to you"):
        certificates.ensure(shared, tmp_path / "own", NOW)
