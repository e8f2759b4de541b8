"""Reads a document in a process of its own: content on stdin, blocks of text on stdout. It runs by its path, alone.

What documents do to a parser (endless loops, gigabytes out of kilobytes, crashes) they do to this process, which has bounds on memory,
time and output from its first line on. `document` starts it.
"""

import codecs
import errno
import json
import re
import resource
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import BinaryIO, NamedTuple

MEMORY_LIMIT = 1024 * 1024 * 1024  # bytes of address space
CPU_LIMIT_S = 60
TEXT_LIMIT = 32 * 1024 * 1024  # bytes of output
PAGE_LIMIT = 5000
REFUSED = 3  # the exit status with which a reason stands on stderr

_HEADING = re.compile(r"(#{1,6})[ \t]+(.+?)(?:[ \t]+#+)?[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_MOST_CONTROL = 0.05  # more control characters than this share are no text


class Block(NamedTuple):
    """A paragraph (`level` 0) or a heading (1 to 6). `page` counts from 1; None where there are no pages."""

    text: str
    level: int = 0
    page: int | None = None


class Unreadable(Exception):
    """The text says why, as the end of the sentence "the document ..."."""


def blocks(kind: str, content: BinaryIO) -> Iterator[Block]:
    """`kind` is txt, md, html or pdf. Raises Unreadable."""
    if kind == "pdf":
        yield from _pdf(content)
        return
    text = decoded(content.read(), is_html=kind == "html")
    yield from {"txt": _plain, "md": _markdown, "html": _html}[kind](text)


def decoded(content: bytes, *, is_html: bool = False) -> str:
    """By its byte order mark, by what HTML says of itself, as UTF-8, and else as Windows-1252, which takes nearly everything."""
    if content.startswith(b"%PDF-"):
        raise Unreadable("is a PDF by its content: upload it under a name that ends in .pdf")
    names = ["utf-8-sig", "cp1252"]
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        names = ["utf-16"]
    elif is_html and (said := _CHARSET.search(content[:2048])) is not None:
        names.insert(0, said[1].decode())
    text = None
    for name in names:
        try:
            text = content.decode(name)
            break
        except (LookupError, ValueError):  # a charset that does not exist, or is not the right one
            continue
    if text is None:
        text = content.decode("utf-8", "replace")
    if len(_CONTROL.findall(text[:65_536])) > _MOST_CONTROL * min(len(text), 65_536):
        raise Unreadable("is not text: it is full of control characters")
    return _CONTROL.sub("", text).replace("\r\n", "\n").replace("\r", "\n")


def _plain(text: str, page: int | None = None) -> Iterator[Block]:
    for paragraph in re.split(r"\n[ \t]*\n", text):
        if stripped := paragraph.strip():
            yield Block(stripped, page=page)


def _markdown(text: str) -> Iterator[Block]:
    """Headings by `#`; fenced code stays in one piece, so that its comments are no headings."""
    lines: list[str] = []
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            lines.append(line)
            if mark is not None and mark[1].startswith(fence):
                fence = ""
            continue
        heading = _HEADING.fullmatch(line)
        if heading is None and line.strip():
            fence = mark[1] if mark is not None else ""
            lines.append(line)
            continue
        yield from _plain("\n".join(lines))
        lines.clear()
        if heading is not None:
            yield Block(heading[2], level=len(heading[1]))
    yield from _plain("\n".join(lines))


_SILENT = frozenset({"script", "style", "template", "noscript", "svg", "head", "iframe", "object", "select"})
_VOID = frozenset(
    {"br", "hr", "img", "input", "link", "meta", "wbr", "col", "area", "base", "embed", "source"}
)
_INLINE = frozenset(
    {
        "a",
        "abbr",
        "b",
        "bdi",
        "bdo",
        "cite",
        "code",
        "data",
        "del",
        "dfn",
        "em",
        "font",
        "i",
        "ins",
        "kbd",
        "label",
        "mark",
        "q",
        "s",
    }
    | {"samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var"}
)
# What may stand in a head; anything else ends it, for its end tag and the body's begin tag may be left out (HTML, 13.1.2.4).
_OF_HEAD = frozenset(
    {"title", "meta", "link", "base", "style", "script", "noscript", "template", "head", "html"}
)
_IN_LIST = frozenset({"td", "th", "tr", "li", "dt", "dd"})


class _Page(HTMLParser):
    """What people would see. Broken markup is taken as it comes; what is never closed ends with the document."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Block] = []
        self._silent: list[str] = []
        self._level = 0
        self._is_code = False
        self._parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._silent[-1:] == ["head"] and tag not in _OF_HEAD:
            self._silent.pop()
            self._parts.clear()
        if tag in _VOID:
            if tag in ("br", "hr"):
                self._parts.append("\n")
            return
        if tag == "body":  # whatever was left open before
            self._silent.clear()
        if tag in _SILENT:
            self._silent.append(tag)
        elif tag in ("td", "th"):
            self._parts.append(" | " if self._parts and self._parts[-1] != "\n" else "")
        elif tag in ("tr", "li", "dt", "dd"):
            self._parts.append("\n")
        elif tag not in _INLINE:
            self.flush()
            self._level = int(tag[1]) if re.fullmatch("h[1-6]", tag) else 0
            self._is_code = self._is_code or tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in self._silent:
            del self._silent[self._silent.index(tag) :]
        elif tag not in _INLINE | _VOID | _IN_LIST:
            self.flush()
            self._level = 0
            self._is_code = self._is_code and tag != "pre"

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._parts.append(data if self._is_code else re.sub(r"\s+", " ", data))

    def flush(self) -> None:
        text = "".join(self._parts)
        lines = (
            text.split("\n")
            if self._is_code
            else (re.sub(r" +", " ", line).strip() for line in text.split("\n"))
        )
        said = "\n".join(line for line in lines if line.strip())
        if said:
            self.found.append(Block(said, level=self._level))
        self._parts.clear()


def _html(text: str) -> Iterator[Block]:
    page = _Page()
    page.feed(text)
    page.close()
    page.flush()
    yield from page.found


def _pdf(content: BinaryIO) -> Iterator[Block]:
    import logging

    import pypdf
    from pypdf.errors import PyPdfError

    logging.disable(logging.CRITICAL)  # it describes every fault of a broken file
    try:
        document = pypdf.PdfReader(content, strict=False)
        if document.is_encrypted and not document.decrypt(""):
            raise Unreadable("is encrypted: upload a copy without a password")
        number = len(document.pages)
        if number > PAGE_LIMIT:
            raise Unreadable(f"has {number} pages; at most {PAGE_LIMIT} are read: split it")
        for place, page in enumerate(document.pages, 1):
            yield from _plain(_CONTROL.sub("", page.extract_text()), page=place)
    except (Unreadable, MemoryError, RecursionError):
        raise
    except PyPdfError as error:
        raise Unreadable(f"is no PDF that can be read: {_line(error)}") from error
    except Exception as error:  # pypdf lets through whatever a broken file leads to
        raise Unreadable(f"is no PDF that can be read: {type(error).__name__}: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def bound() -> None:
    """From here on this process can do no more harm than its limits."""
    for what, most in (
        (resource.RLIMIT_AS, MEMORY_LIMIT),
        (resource.RLIMIT_CPU, CPU_LIMIT_S),
        (resource.RLIMIT_FSIZE, TEXT_LIMIT),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (value, value))


def main() -> int:
    bound()
    try:
        for block in blocks(sys.argv[1], sys.stdin.buffer):
            text = block.text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
            sys.stdout.buffer.write(json.dumps(block._replace(text=text)).encode() + b"\n")
        sys.stdout.buffer.flush()
    except Unreadable as error:
        said = str(error)
    except MemoryError:
        said = f"takes more memory than {MEMORY_LIMIT // 2**20} MiB to read: split it"
    except RecursionError:
        said = "is nested too deeply"
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        said = f"has more than {TEXT_LIMIT // 2**20} MiB of text: split it"
    else:
        return 0
    sys.stderr.write(said)
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
