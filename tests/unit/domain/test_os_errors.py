"""Errors of the operating system name the file and say what to do."""

import errno
import os
from pathlib import Path

import pytest

from llmop.domain import os_errors
from llmop.store import sqlite


def error(code: int, *path: str) -> OSError:
    return OSError(code, os.strerror(code), *path)


@pytest.mark.parametrize(
    ("given", "path", "sentence"),
    [
        (
            error(errno.EACCES, "/a/b"),
            "/a",
            "/a/b: Permission denied; check who owns it, its mode, and the modes of the directories above it",
        ),
        (error(errno.ENOSPC), "/a", "/a: No space left on device; make room on its disk"),
        (error(errno.ENOENT, "/a/b"), "", "/a/b: No such file or directory"),
        (PermissionError(errno.EPERM, "others can change /a", "/a"), "/x", "others can change /a"),
        (OSError("it is odd"), "/a", "/a: it is odd"),
        (OSError(), "", "OSError"),
        (OSError(errno.EIO, "Input/output error", 7), "/a", "/a: Input/output error"),
    ],
)
def test_the_file_the_words_and_a_way_out(given: OSError, path: str, sentence: str) -> None:
    assert sentence == os_errors.sentence(given, path)


def test_a_database_that_may_not_be_opened_is_named() -> None:
    words = sqlite.explain(Path("/a.db"), error(errno.EACCES, "/a.db"))

    assert words.startswith("the store /a.db: /a.db: Permission denied; check who owns it")
