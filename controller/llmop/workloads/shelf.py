"""The contents of files: one each in a private directory, under the file's name. They never change; they come into place whole."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from llmop.workloads.lines import LINE_LIMIT

_PART = ".part"


class Draft:
    """A content that is being written. It is there once it was kept, and then whole; else nothing of it stays."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + _PART)
        self._file: BinaryIO = self._part.open("wb")
        self.size = 0

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self.size += len(content)

    def keep(self) -> None:
        """Durable once it returns. Raises OSError."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.rename(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def drop(self) -> None:
        """For all that was not kept."""
        try:
            self._file.close()
        except OSError:
            pass  # what could not be written is not wanted any more
        self._part.unlink(missing_ok=True)


class Shelf:
    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory

    def path(self, name: str) -> Path:
        return self.directory / name

    def draft(self, name: str) -> Draft:
        return Draft(self.path(name))

    def open(self, name: str) -> BinaryIO:
        """Raises OSError."""
        return self.path(name).open("rb")

    def names(self) -> list[str]:
        """Everything that lies there."""
        return [entry.name for entry in self.directory.iterdir()]

    def remove(self, names: Collection[str]) -> None:
        for name in names:
            self.path(name).unlink(missing_ok=True)


def lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes, int]]:
    """Number from 1, where it starts, the line without its end, and its whole length, for every line that is not blank. Of a line over
    the limit one byte more than the limit comes, and the rest is passed by.
    """
    number = position = 0
    while line := file.readline(LINE_LIMIT + 2):
        number += 1
        start = position
        position += len(line)
        piece = line
        while not piece.endswith(b"\n") and (piece := file.readline(LINE_LIMIT)):
            position += len(piece)
        content = line.rstrip(b"\r\n")
        if content.strip():
            yield number, start, content[: LINE_LIMIT + 1], position - start
