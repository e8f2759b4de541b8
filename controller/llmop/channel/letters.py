"""The files in an inbox: found, read and removed. What lies there may be anything; nothing here looks into it.

All of it blocks, and may hang where the file system does: for threads.
"""

import dataclasses
import errno
import itertools
import os
import re
import stat
from collections.abc import Collection, Iterable
from pathlib import Path

from llmop.channel import messages
from llmop.domain import ids

MOST = 1000  # letters of one look; the others wait for the next
MOST_OF_ONE = (
    16  # of them from one replica, so that none crowds out the others; agents leave two or three at most
)
MOST_BYTES = 16 * 1024 * 1024
MOST_NAMES = 50_000  # names that are kept in memory at a time

_NAME = re.compile(r"(?P<draft>\.?)(?P<job>llmop-[a-z0-9-]{1,200})\.\d{10}\.(?P<nonce>[0-9a-f]{8})\.json")


class _NoMessage(Exception):
    """Whatever is in it, nobody shall look at it."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Letter:
    """One file. `problem` says why it is no message, `unread` why its content could not be had; `nonce` is the random part of its name."""

    name: str
    job_name: str
    nonce: str
    content: bytes = b""
    problem: str = ""
    unread: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """`names` are all that belong to this installation and lie there, `drafts` those of them whose agents have not finished them."""

    letters: tuple[Letter, ...]
    names: frozenset[str]
    drafts: frozenset[str]


def find(inbox: Path, installation: str, but: Collection[str]) -> Found:
    """Lists the inbox once and reads what lies there, without the names in `but`, those of each replica in the order of their numbers.

    What has another name is not ours and is left alone. Raises OSError when the inbox cannot be listed.
    """
    drafts: set[str] = set()
    waiting: dict[str, re.Match[str]] = {}
    with os.scandir(inbox) as entries:
        for entry in itertools.islice(_ours(entries, installation), MOST_NAMES):
            if entry["draft"]:
                drafts.add(entry[0])
            else:
                waiting[entry[0]] = entry
    letters: list[Letter] = []
    room = MOST_BYTES
    for match in _fairly(waiting[name] for name in sorted(waiting) if name not in but):
        if len(letters) >= MOST or room < messages.BODY_LIMIT:
            break
        letter = _read(inbox, match)
        if letter is not None:
            letters.append(letter)
            room -= len(letter.content)
    return Found(letters=tuple(letters), names=frozenset(waiting), drafts=frozenset(drafts))


def _ours(entries: Iterable[os.DirEntry[str]], installation: str) -> Iterable[re.Match[str]]:
    for entry in entries:
        match = _NAME.fullmatch(entry.name)
        if match is None:
            continue
        parts = ids.parse_job_name(match["job"])
        if parts is not None and parts.installation == installation:
            yield match


def _fairly(matches: Iterable[re.Match[str]]) -> Iterable[re.Match[str]]:
    for _, of_one in itertools.groupby(matches, key=lambda match: match["job"]):
        yield from itertools.islice(of_one, MOST_OF_ONE)


def _read(inbox: Path, match: re.Match[str]) -> Letter | None:
    """None when it is gone: its agent has written a newer one."""
    name = match[0]
    content, problem, unread = b"", "", ""
    try:
        content = _content(inbox / name)
    except FileNotFoundError:
        return None
    except _NoMessage as error:
        problem = str(error)
    except OSError as error:
        if error.errno == errno.ESTALE:  # removed on another machine after it was opened here
            return None
        unread = error.strerror or str(error)
    return Letter(
        name=name,
        job_name=match["job"],
        nonce=match["nonce"],
        content=content,
        problem=problem,
        unread=unread,
    )


def _content(path: Path) -> bytes:
    """At most one byte more than a message may have. Raises _NoMessage for all but a file of our own that nobody else can write; OSError."""
    # Opening a device or a pipe would do something.
    _require(path.lstat())
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        _require(os.fstat(descriptor))
        return file.read(messages.BODY_LIMIT + 1)


def _require(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _NoMessage("is no regular file")
    if found.st_uid != os.geteuid():
        raise _NoMessage(f"belongs to user id {found.st_uid}")
    if found.st_mode & 0o022:
        raise _NoMessage("can be changed by others")


def remove(inbox: Path, names: Iterable[str]) -> str:
    """Removes files; links are not followed. "" or why the first of those that stay cannot be removed."""
    problem = ""
    for name in names:
        try:
            (inbox / name).unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            problem = problem or f"{name}: {error.strerror}"
    return problem
