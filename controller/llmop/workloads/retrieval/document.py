"""From a file to passages: what kind it is, a process that reads it, and what follows from how that ends."""

import asyncio
import contextlib
import itertools
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import IO

import orjson

from llmop.workloads.retrieval import reader
from llmop.workloads.retrieval.chunks import Cut, Passage, passages
from llmop.workloads.retrieval.reader import Block
from llmop.workloads.retrieval.values import Problem

FILE_LIMIT = 64 * 1024 * 1024  # bytes
MOST_PASSAGES = 20_000
_DEADLINE_S = 180.0  # by the wall; the process has its own bound on CPU time
_KINDS = {
    ".txt": "txt",
    ".text": "txt",
    ".md": "md",
    ".markdown": "md",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
}


class Refused(Exception):
    """The document will never be read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def kind_of(filename: str) -> str:
    """Raises Refused."""
    kind = _KINDS.get(Path(filename).suffix.lower())
    if kind is None:
        known = ", ".join(sorted(_KINDS))
        raise Refused(
            Problem("unsupported_file", f"'{filename[:200]}' is not of a kind that is read: {known}")
        )
    return kind


class Passages:
    """Of a document, in a file without a name: who waits for a model keeps none of them in memory. `number` is how many there are."""

    def __init__(self, file: IO[bytes], number: int) -> None:
        self._file = file
        self._at = number  # the passage that is read next
        self.number = number

    async def begin_with(self, texts: Sequence[str]) -> bool:
        """Whether the first ones have these texts."""
        return await asyncio.to_thread(self._begin_with, texts)

    async def part(self, start: int, most: int) -> list[Passage]:
        """From the one at `start` on."""
        return await asyncio.to_thread(self._part, start, most)

    def _begin_with(self, texts: Sequence[str]) -> bool:
        return len(texts) <= self.number and all(
            text == self._part(place, 1)[0].text for place, text in enumerate(texts)
        )

    def _part(self, start: int, most: int) -> list[Passage]:
        if start < self._at:
            self._file.seek(0)
            self._at = 0
        lines = itertools.islice(self._file, start - self._at, start - self._at + most)
        found = [Passage(text, tuple(headings), page) for text, headings, page in map(orjson.loads, lines)]
        self._at = start + len(found)
        return found


@contextlib.asynccontextmanager
async def read(path: Path, filename: str, cut: Cut) -> AsyncIterator[Passages]:
    """Raises Refused, and OSError where the content is not there, the disk does not take the passages, or the process cannot be started.
    What is written lies beside the content: other places for temporary files are memory on some machines.
    """
    kind = kind_of(filename)
    size = path.stat().st_size
    if size > FILE_LIMIT:
        message = f"the document has {size} bytes; at most {FILE_LIMIT} are read: split it"
        raise Refused(Problem("invalid_file", message))
    with tempfile.TemporaryFile(dir=path.parent) as passages:
        with (
            path.open("rb") as content,
            tempfile.TemporaryFile(dir=path.parent) as said,
            tempfile.TemporaryFile(dir=path.parent) as why,
        ):
            process = await asyncio.to_thread(_start, kind, content, said, why)
            try:
                code = await asyncio.to_thread(process.wait, _DEADLINE_S)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                process.kill()
            if code != 0:
                raise Refused(Problem("invalid_file", f"the document {_reason(code, why)}"))
            number = await asyncio.to_thread(_cut, said, cut, passages)
        if not number:
            hint = "; is it scanned pages without a text layer?" if kind == "pdf" else ""
            raise Refused(Problem("invalid_file", f"the document has no text{hint}"))
        yield Passages(passages, number)


def _start(kind: str, content: IO[bytes], said: IO[bytes], why: IO[bytes]) -> subprocess.Popen[bytes]:
    """Alone: nothing of our environment, no other module of ours."""
    return subprocess.Popen(
        [sys.executable, "-I", reader.__file__, kind],
        stdin=content,
        stdout=said,
        stderr=why,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        cwd="/",
    )


def _reason(code: int | None, why: IO[bytes]) -> str:
    """The end of a sentence. What a crash leaves on stderr says nothing to those who have uploaded the file."""
    if code == reader.REFUSED:
        why.seek(0)
        return why.read(1000).decode("utf-8", "replace")
    if code is None:
        return f"took longer than {_DEADLINE_S:g} s to read: split it"
    if code in (-24, -9):  # SIGXCPU; the kernel's SIGKILL at the hard limit, or for want of memory
        return f"took more than {reader.CPU_LIMIT_S} s of computing, or too much memory: split it"
    return "cannot be read: its reader has crashed over it"


def _cut(said: IO[bytes], cut: Cut, into: IO[bytes]) -> int:
    """Writes the passages, a line each, and says how many."""
    said.seek(0)
    number = 0
    for number, passage in enumerate(passages(_blocks(said), cut), 1):
        if number > MOST_PASSAGES:
            message = f"the document has more than {MOST_PASSAGES} passages: split it"
            raise Refused(Problem("invalid_file", message))
        into.write(orjson.dumps(tuple(passage)) + b"\n")
    return number


def _blocks(said: IO[bytes]) -> Iterator[Block]:
    for line in said:
        yield Block(*orjson.loads(line))
