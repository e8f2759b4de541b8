"""Keys: made once, kept as hashes, read again when the file changes."""

import stat
from pathlib import Path
from typing import Any

import pytest

from llmop.domain.client import ClientKey, digest
from llmop.domain.errors import AlreadyExists, NeedsUser
from llmop.gateway import keys
from llmop.gateway.keys import KeyRing

NOW = 1000.0


def hashed(secret: str) -> str:
    return digest(secret.encode()).hex()


def granted(secret: str, **more: Any) -> ClientKey:
    return ClientKey(name="default/a", digest=hashed(secret), **more)


def test_a_key_is_recognisable_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    secret = keys.create(file, "team")
    assert secret.startswith("llmop-")
    assert secret not in file.read_text()
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert KeyRing(file, NOW).find(secret.encode()) == ClientKey(name="team", digest=hashed(secret))


def test_keys_are_added_and_names_are_not_reused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    first, second = keys.create(file, "a"), keys.create(file, "b")
    with pytest.raises(AlreadyExists):
        keys.create(file, "a")
    ring = KeyRing(file, NOW)
    assert [True, True, False, False] == [
        ring.find(secret) is not None for secret in (first.encode(), second.encode(), b"llmop-x", None)
    ]


def test_a_program_keeps_its_key_and_gets_another_one_when_that_is_worth_nothing(tmp_path: Path) -> None:
    file, secret_file = tmp_path / "keys", tmp_path / "secret"
    secret = keys.kept(file, "program", secret_file)
    assert secret == secret_file.read_text().strip()
    assert 0o600 == stat.S_IMODE(secret_file.stat().st_mode)
    assert secret == keys.kept(file, "program", secret_file)
    secret_file.unlink()  # as after a crash between the two files
    second = keys.kept(file, "program", secret_file)
    assert second != secret
    file.unlink()
    third = keys.kept(file, "program", secret_file)
    assert third not in (secret, second)
    assert KeyRing(file, NOW).find(third.encode()) is not None
    assert third == secret_file.read_text().strip()


def test_a_new_key_is_known_without_a_restart_and_a_removed_one_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    ring = KeyRing(file, NOW)
    secret = keys.create(file, "a")
    ring.refresh(NOW)
    assert ring.find(secret.encode()) is not None
    file.unlink()
    ring.refresh(NOW)
    assert not (ring.find(secret.encode()) is not None)


def test_a_damaged_file_names_its_line_and_keeps_the_keys_that_were_read(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    secret = keys.create(file, "a")
    ring = KeyRing(file, NOW)
    with file.open("a") as out:
        out.write("garbage\n")
    with pytest.raises(NeedsUser, match=r"keys:2: expected"):
        ring.refresh(NOW)
    assert ring.find(secret.encode()) is not None


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    keys.create(file, "a")
    file.chmod(0o640)
    with pytest.raises(NeedsUser, match=r"0640.*chmod 600"):
        KeyRing(file, NOW)


@pytest.mark.parametrize("name", ["", "two words", "a\nb", "x" * 64, "-a"])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(NeedsUser, match="key name"):
        keys.create(tmp_path / "keys", name)
    assert [] == list(tmp_path.iterdir())


def test_a_granted_key_is_found_by_its_secret_and_gone_when_it_is_not_granted_any_more(
    tmp_path: Path,
) -> None:
    ring = KeyRing(tmp_path / "keys", NOW)
    key = granted("llmop-x", models=("m",))
    ring.grant((key,), NOW)
    before = ring.version
    assert (key, None) == (ring.find(b"llmop-x"), ring.find(b"llmop-y"))
    ring.grant((key,), NOW)
    assert before == ring.version
    ring.grant((), NOW)
    assert ring.find(b"llmop-x") is None
    assert ring.version > before


def test_a_key_ends_when_it_expires_and_whoever_was_let_in_with_it_is_looked_at_again(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys", NOW)
    ring.grant((granted("llmop-x", expires_at=NOW + 10), granted("llmop-y", expires_at=NOW + 20)), NOW)
    version = ring.version
    ring.refresh(NOW + 9.9)
    assert (True, version) == (ring.find(b"llmop-x") is not None, ring.version)
    ring.refresh(NOW + 10)
    assert [False, True] == [ring.find(each) is not None for each in (b"llmop-x", b"llmop-y")]
    assert ring.version > version
    ring.refresh(NOW + 20)
    assert ring.find(b"llmop-y") is None


def test_what_the_controller_says_of_a_key_counts_more_than_the_file_also_when_it_has_expired(
    tmp_path: Path,
) -> None:
    file = tmp_path / "keys"
    secret = keys.create(file, "a")
    ring = KeyRing(file, NOW)
    ring.grant((granted(secret, models=("m",), expires_at=NOW + 1),), NOW)
    found = ring.find(secret.encode())
    assert found is not None
    assert ("m",) == found.models
    ring.refresh(NOW + 1)
    assert ring.find(secret.encode()) is None


def test_keys_expire_although_the_file_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    ring = KeyRing(file, NOW)
    ring.grant((granted("llmop-x", expires_at=NOW + 1),), NOW)
    file.write_text("garbage\n")
    file.chmod(0o600)
    with pytest.raises(NeedsUser):
        ring.refresh(NOW + 1)
    assert ring.find(b"llmop-x") is None


def test_the_key_behind_a_row_is_found_by_its_hash_also_that_of_nobody(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    secret = keys.create(file, "team")
    ring = KeyRing(file, NOW)
    ring.grant((granted("theirs", expires_at=NOW + 10),), NOW)
    assert ring.find(secret.encode()) == ring.behind(hashed(secret).encode())
    assert granted("theirs", expires_at=NOW + 10) == ring.behind(hashed("theirs").encode())
    assert keys.KEYLESS == ring.behind(hashed("").encode())
    ring.refresh(NOW + 10)
    assert [None] * 4 == [ring.behind(each) for each in (hashed("theirs").encode(), b"", b"zz", b"\xff")]


@pytest.mark.parametrize(
    "name, is_reserved",
    [
        ("workloads", True),
        ("workloads-x2k4p", True),
        ("workloadsx", False),
        ("default/workloads", False),
        ("workloads/a", False),
        ("workloads-a/b", False),
        ("up", False),
        ("", False),
    ],
)
def test_which_keys_may_ask_for_others(name: str, is_reserved: bool) -> None:
    assert is_reserved == keys.is_reserved(name)
