"""From a file to passages: what kind it is, a process that reads it, and what follows from how that ends."""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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


async def read(path: Path, filename: str, cut: Cut) -> list[Passage]:
    """Raises Refused, and OSError where the content is not there or the process cannot be started."""
    kind = kind_of(filename)
    size = path.stat().st_size
    if size > FILE_LIMIT:
        message = f"the document has {size} bytes; at most {FILE_LIMIT} are read: split it"
        raise Refused(Problem("invalid_file", message))
    with path.open("rb") as content, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as why:
        process = await asyncio.to_thread(_start, kind, content, said, why)
        try:
            code = await asyncio.to_thread(process.wait, _DEADLINE_S)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            process.kill()
        if code != 0:
            raise Refused(Problem("invalid_file", f"the document {_reason(code, why)}"))
        found = await asyncio.to_thread(_cut, said, cut)
    if not found:
        hint = "; is it scanned pages without a text layer?" if kind == "pdf" else ""
        raise Refused(Problem("invalid_file", f"the document has no text{hint}"))
    return found


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


def _cut(said: IO[bytes], cut: Cut) -> list[Passage]:
    said.seek(0)
    found: list[Passage] = []
    for passage in passages(_blocks(said), cut):
        found.append(passage)
        if len(found) > MOST_PASSAGES:
            message = f"the document has more than {MOST_PASSAGES} passages: split it"
            raise Refused(Problem("invalid_file", message))
    return found


def _blocks(said: IO[bytes]) -> Iterator[Block]:
    for line in said:
        yield Block(*orjson.loads(line))
