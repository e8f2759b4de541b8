"""A database that cannot be used, in words that say what to do."""

import sqlite3
from pathlib import Path

from llmop.domain.errors import NeedsUser

# By SQLite's names of its result codes (https://www.sqlite.org/rescode.html).
_WHAT_TO_DO = (
    ("SQLITE_FULL", "make room on its disk"),
    (
        "SQLITE_CANTOPEN",
        "see that this file and its directory are yours, can be written, and that their disk is not full",
    ),
    ("SQLITE_READONLY", "see that this file and its directory are yours and can be written"),
    ("SQLITE_PERM", "see that this file and its directory are yours and can be written"),
    ("SQLITE_NOTADB", "it is no database of llmop: move it away; without it files and batches are lost"),
    (
        "SQLITE_CORRUPT",
        "it is damaged: put back a copy, or move it away; without it files and batches are lost",
    ),
    ("SQLITE_BUSY", "another program holds it: end that"),
)


def sentence(path: Path, error: sqlite3.Error) -> NeedsUser:
    """What a person has to do about it."""
    code = getattr(error, "sqlite_errorname", "")
    words = next((words for start, words in _WHAT_TO_DO if code.startswith(start)), "see that its disk works")
    return NeedsUser("DatabaseUnusable", f"{path}: {error}; {words}")
