"""Cuts a document into passages that are embedded and cited one by one. Pure."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from llmop.workloads.retrieval.reader import Block

_BYTES_PER_TOKEN = 4  # of English; the tokens of an embedding model are not known here
_LONGEST_HEADING = 200
_ENDS = re.compile(r"[.!?][\"')\]]*\s+|\n+")
_SPACE = re.compile(r"\s")


class Cut(NamedTuple):
    """How long a passage is, and how much of its end the next one repeats; in tokens, as clients say it."""

    size: int = 256
    overlap: int = 32


class Passage(NamedTuple):
    """`headings` are those it stands under, the outermost first. `page` counts from 1; None where there are no pages."""

    text: str
    headings: tuple[str, ...] = ()
    page: int | None = None

    def embedded(self, title: str) -> str:
        """What an embedding model gets: a passage alone often does not say what it is about."""
        return " > ".join(dict.fromkeys((title, *self.headings))) + "\n" + self.text


def passages(blocks: Iterable[Block], cut: Cut) -> Iterator[Passage]:
    """In the order of the document. A heading or a page begins a new passage, so that what is cited stands where it is said to stand."""
    size, overlap = cut.size * _BYTES_PER_TOKEN, cut.overlap * _BYTES_PER_TOKEN
    headings: list[tuple[int, str]] = []
    page: int | None = None
    texts: list[str] = []

    def section() -> Iterator[Passage]:
        above = tuple(text for _, text in headings)
        for piece in _pieces("\n\n".join(texts), size, overlap):
            yield Passage(piece, above, page)
        texts.clear()

    for block in blocks:
        if block.level or block.page != page:
            yield from section()
            page = block.page
        if block.level:
            headings = [each for each in headings if each[0] < block.level]
            headings.append((block.level, " ".join(block.text.split())[:_LONGEST_HEADING]))
        else:
            texts.append(block.text)
    yield from section()


def _pieces(text: str, size: int, overlap: int) -> Iterator[str]:
    """Pieces of up to `size` characters that end where a sentence does, or a word, or anywhere."""
    start = 0
    while len(text) - start > size:
        end = _end(text, start, size)
        yield text[start:end].strip()
        again = max(end - overlap, start + 1)
        space = _SPACE.search(text, again, end)
        start = end if space is None else space.end()
    if rest := text[start:].strip():
        yield rest


def _end(text: str, start: int, size: int) -> int:
    """In the last half of the piece, if a place can be found there."""
    half, most = start + size // 2, start + size
    for pattern in (_ENDS, _SPACE):
        if ends := [found.end() for found in pattern.finditer(text, half, most)]:
            return ends[-1]
    return most
