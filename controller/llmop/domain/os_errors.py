"""Errors of the operating system in words: which file, what the system says, and what to do about it."""

import errno

_ADVICE = {
    errno.EACCES: "check who owns it, its mode, and the modes of the directories above it",
    errno.ENOSPC: "make room on its disk",
    errno.EDQUOT: "make room: the quota of this account is used up",
    errno.EROFS: "it is mounted read-only",
    errno.ESTALE: "its file server has lost it; mount it again",
}


def sentence(error: OSError, path: object = "") -> str:
    """`path` is what was being used, for errors that name no file themselves."""
    words = error.strerror or str(error) or type(error).__name__
    advice = _ADVICE.get(error.errno or 0, "")
    named = error.filename if isinstance(error.filename, str) and error.filename else str(path)
    # What llmop says itself may begin with the file already.
    where = f"{named}: " if named and named not in words else ""
    return f"{where}{words}" + (f"; {advice}" if advice else "")
