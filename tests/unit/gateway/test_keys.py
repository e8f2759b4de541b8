"""Keys: made once, kept as hashes, read again when the file changes."""

import stat
from pathlib import Path

import pytest

from llmop.domain.errors import AlreadyExists, NeedsUser
from llmop.gateway import keys
from llmop.gateway.keys import KeyRing


def test_a_key_is_recognisable_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    secret = keys.create(file, "team")
    assert secret.startswith("llmop-")
    assert secret not in file.read_text()
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert KeyRing(file).knows(secret.encode())


def test_keys_are_added_and_names_are_not_reused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    first, second = keys.create(file, "a"), keys.create(file, "b")
    with pytest.raises(AlreadyExists):
        keys.create(file, "a")
    ring = KeyRing(file)
    assert [True, True, False, False] == [
        ring.knows(secret) for secret in (first.encode(), second.encode(), b"llmop-x", None)
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
    assert KeyRing(file).knows(third.encode())
    assert third == secret_file.read_text().strip()


def test_a_new_key_is_known_without_a_restart_and_a_removed_one_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    ring = KeyRing(file)
    secret = keys.create(file, "a")
    ring.reload()
    assert ring.knows(secret.encode())
    file.unlink()
    ring.reload()
    assert not ring.knows(secret.encode())


def test_a_damaged_file_names_its_line_and_keeps_the_keys_that_were_read(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    secret = keys.create(file, "a")
    ring = KeyRing(file)
    with file.open("a") as out:
        out.write("garbage\n")
    with pytest.raises(NeedsUser, match=r"keys:2: expected"):
        ring.reload()
    assert ring.knows(secret.encode())


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    keys.create(file, "a")
    file.chmod(0o640)
    with pytest.raises(NeedsUser, match=r"0640.*chmod 600"):
        KeyRing(file)


@pytest.mark.parametrize("name", ["", "two words", "a\nb", "x" * 64, "-a"])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(NeedsUser, match="key name"):
        keys.create(tmp_path / "keys", name)
    assert [] == list(tmp_path.iterdir())
