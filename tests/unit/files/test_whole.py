"""Files that are there as a whole or not at all."""

from pathlib import Path

import pytest

from llmop.files import whole


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_what_is_written_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    for content in (b"one", b"another"):
        whole.write(tmp_path / "file", content, 0o600)
        assert content == (tmp_path / "file").read_bytes()
    assert 0o600 == (tmp_path / "file").stat().st_mode & 0o777
    assert ["file"] == names(tmp_path)


def test_what_is_created_leaves_what_was_there(tmp_path: Path) -> None:
    for content in (b"one", b"another"):
        whole.create(tmp_path / "file", content, 0o600)
        assert b"one" == (tmp_path / "file").read_bytes()
    assert ["file"] == names(tmp_path)


def test_what_cannot_be_put_in_its_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        whole.write(tmp_path / "folder", b"", 0o600)
    assert ["folder"] == names(tmp_path)
