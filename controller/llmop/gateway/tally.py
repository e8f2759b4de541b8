"""What clients use, written down by the worker processes of a gateway: numbers in files that are mapped into memory.

Each worker has a file of its own, in which a number has a single writer. A number that stands there outlives the process however it ends,
and writing it costs no system call; only a machine that goes down loses what its kernel had not written yet, some seconds. `spool` reads
the files and hands on what is new in them.
"""

import fcntl
import logging
import mmap
import os
import struct
from pathlib import Path
from typing import Final

from llmop.domain.usage import Amount

LOG = logging.getLogger(__name__)

_RECORD: Final = 512  # bytes: sizes of the two names, five numbers, names
_RECORDS: Final = 1024  # in what a file grows by
_CHUNK: Final = _RECORD * _RECORDS
_SIZES = struct.Struct("<HHH")  # whether the record is there, bytes of the two names
# Native, so that each number is written at once: one of a given byte order is written byte by byte.
_NUMBERS = struct.Struct(
    "@5q"
)  # requests, tokens of prompts and of answers, estimated ones, refused requests
_NUMBERS_AT: Final = 8
_pack_numbers = _NUMBERS.pack_into
_pack_first = struct.Struct("@3q").pack_into  # what every request changes
_THERE: Final = 1
SUFFIX: Final = ".tally"
_NAMES: Final = 64  # where they begin

Names = tuple[str, str]  # of key and model


class Entry:
    """The numbers of one key and model. Nobody else writes them, so they are kept here too and only written there, with one call."""

    __slots__ = ("_completion", "_estimated", "_limited", "_prompt", "_record", "_requests")

    def __init__(self, record: memoryview) -> None:
        self._record = record
        self._requests = self._prompt = self._completion = self._estimated = self._limited = 0

    def used(self, prompt: int, completion: int, estimated: bool) -> None:
        """The fields of a Usage."""
        self._requests = requests = self._requests + 1
        self._prompt = prompt = self._prompt + prompt
        self._completion = completion = self._completion + completion
        if estimated:
            self._estimated += 1
            self._write()
        else:
            _pack_first(self._record, _NUMBERS_AT, requests, prompt, completion)

    def limited(self) -> None:
        self._limited += 1
        self._write()

    def _write(self) -> None:
        _pack_numbers(
            self._record,
            _NUMBERS_AT,
            self._requests,
            self._prompt,
            self._completion,
            self._estimated,
            self._limited,
        )


class Tally:
    """A worker's file, made anew in every life of a worker and locked for as long as it lives."""

    def __init__(self, folder: Path, name: str) -> None:
        """`name` is unique. Raises OSError."""
        hidden = folder / f".{name}"
        self._descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.file = hidden.rename(folder / f"{name}{SUFFIX}")
        self._entries: dict[Names, Entry] = {}
        self._chunk: memoryview
        self._records = 0

    def of(self, key: str, model: str) -> Entry:
        """Raises OSError where there is no place yet for this key and model and none can be made, as on a full disk."""
        entry = self._entries.get((key, model))
        return self._make((key, model)) if entry is None else entry

    def _make(self, names: Names) -> Entry:
        key, model = (name.encode() for name in names)
        if len(key) + len(model) > _RECORD - _NAMES:
            raise OSError(f"the names of the key and the model are longer than {_RECORD - _NAMES} bytes")
        chunk, place = divmod(self._records, _RECORDS)
        if not place:
            os.posix_fallocate(self._descriptor, chunk * _CHUNK, _CHUNK)
            self._chunk = memoryview(mmap.mmap(self._descriptor, _CHUNK, offset=chunk * _CHUNK))
        record = self._chunk[place * _RECORD : (place + 1) * _RECORD]
        record[_NAMES : _NAMES + len(key) + len(model)] = key + model
        _SIZES.pack_into(record, 0, _THERE, len(key), len(model))  # last: only then it is there
        self._records += 1
        entry = self._entries[names] = Entry(record)
        return entry

    def close(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # the mapped memory holds the file open
        os.close(self._descriptor)


def read(file: Path) -> tuple[dict[Names, Amount], bool]:
    """What stands in a worker's file, and whether that is all: its worker is gone. Raises OSError."""
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            complete = True
        except BlockingIOError:
            complete = False
        size = os.fstat(descriptor).st_size
        content = memoryview(mmap.mmap(descriptor, size, prot=mmap.PROT_READ)) if size else memoryview(b"")
    finally:
        os.close(descriptor)
    return _amounts(content), complete


def _amounts(content: memoryview) -> dict[Names, Amount]:
    found: dict[Names, Amount] = {}
    for start in range(0, len(content), _RECORD):
        record = content[start : start + _RECORD]
        there, key, model = _SIZES.unpack_from(record)
        if not there:
            break
        names = bytes(record[_NAMES : _NAMES + key + model])
        requests, prompt, completion, estimated, limited = _NUMBERS.unpack_from(record, _NUMBERS_AT)
        found[names[:key].decode(), names[key:].decode()] = Amount(
            requests=requests,
            prompt_tokens=prompt,
            completion_tokens=completion,
            estimated=estimated,
            limited=limited,
        )
    return found


class Accounts:
    """What the hot path writes into. A tally that cannot be had, or has no place left, is no reason not to serve."""

    def __init__(self, tally: Tally | None = None) -> None:
        self._tally = tally
        self._complained = False

    @classmethod
    def begin(cls, folder: Path | None, name: str) -> "Accounts":
        """`folder` None: nothing is written down, as its reason was told before."""
        try:
            return cls(None if folder is None else Tally(folder, name))
        except OSError as error:
            LOG.error("what clients use is not written down: %s", error)
            return cls()

    @property
    def name(self) -> str:
        return "" if self._tally is None else self._tally.file.name

    def entry(self, key: str, model: str) -> Entry | None:
        """None where nothing is written down, or no place can be had now."""
        if self._tally is None:
            return None
        try:
            return self._tally.of(key, model)
        except OSError as error:
            if not self._complained:
                self._complained = True
                LOG.error(
                    "what the key %s uses of %s is not written down: %s", key or "of nobody", model, error
                )
            return None
