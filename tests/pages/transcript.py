"""What a page asks its readers to do, and whether a command printed what the page shows.

In the page, ```console blocks hold `$ command` lines and what they print. A comment before a block says more:
`file: NAME` the block is the text of that file; `test: skip` people only; `test: exit N` its last command ends so; `test: background` a
terminal of its own; `test: interrupt` Ctrl-C in these first, the newest one first.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

# The name of a replica or of a batch, a moment, a number: what is another one every time.
VARIES = (
    (re.compile(r"\b(sim|simulator|tiny|chat)-[a-z0-9]{5}\b"), r"\1-NAME"),
    (re.compile(r"\bbatch_[a-z0-9]{24}\b"), "batch_NAME"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "MOMENT"),
    (re.compile(r"\b(\d+[dhms])+\b"), "TIME"),
    (re.compile(r"\b\d+\b"), "N"),
    (re.compile(r"\s+"), " "),
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One command of the page and the lines that are shown below it; `line` is where it stands."""

    line: int
    command: str
    shown: tuple[str, ...] = ()
    exit_code: int = 0
    way: str = ""  # "", background or interrupt


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A file that the page asks its readers to write."""

    name: str
    text: str


def read(page: str) -> Iterator[Step | File]:
    """What the page asks its readers to do, in order."""
    block = re.compile(
        r"(?:<!-- (?P<mark>.*?) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
    )
    for found in block.finditer(page):
        mark = found["mark"] or ""
        if mark.startswith("file: "):
            yield File(name=mark.removeprefix("file: "), text=found["text"])
        elif found["kind"] == "console" and mark != "test: skip":
            yield from _steps(found["text"], mark, page.count("\n", 0, found.start("text")) + 1)


def _steps(text: str, mark: str, first: int) -> Iterator[Step]:
    way = mark.removeprefix("test: ")
    made: list[Step] = []
    for number, line in enumerate(text.splitlines(), start=first):
        if line.startswith("$ "):
            made.append(Step(line=number, command=line[2:], way=way if not way.startswith("exit") else ""))
        elif line:
            made[-1] = dataclasses.replace(made[-1], shown=(*made[-1].shown, line))
    if way.startswith("exit "):
        made[-1] = dataclasses.replace(made[-1], exit_code=int(way.removeprefix("exit ")))
    yield from made


def plain(line: str) -> str:
    """The line without what varies."""
    for pattern, word in VARIES:
        line = pattern.sub(word, line)
    return line.strip()


def missing(shown: tuple[str, ...], printed: str) -> str:
    """The first shown line that was not printed, in order; "" when all were. `...` stands for anything, also within a line.

    Which of two deployments is ready first nobody can promise: such lines may stand anywhere.
    """
    everything = [plain(line) for line in printed.splitlines()]
    rest = iter(everything)
    for line in shown:
        pattern = re.compile(".*".join(re.escape(part) for part in plain(line).split("...")))
        lines = everything if line.endswith(" ready") else rest
        if line.strip() != "..." and not any(pattern.fullmatch(candidate) for candidate in lines):
            return line
    return ""
