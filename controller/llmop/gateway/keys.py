"""Keys of the gateway's clients. The file holds their hashes, one `<name> sha256:<hex>` per line.

A key is 256 random bits, so a fast hash gives nothing away to whoever reads the file.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from llmop.clock import Clock, SystemClock
from llmop.domain.errors import AlreadyExists, NeedsUser
from llmop.gateway.table_file import write_private

PREFIX = "llmop-"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
_LINE = re.compile(r"(?P<name>\S+) sha256:(?P<digest>[0-9a-f]{64})")

Signature = tuple[int, int, int]


def create(file: Path, name: str, clock: Clock | None = None) -> str:
    """Makes a key, appends its hash to `file` and returns the key: this is the only moment it can be seen.

    Raises NeedsUser for a name that is not 1 to 63 of `A-Z a-z 0-9 . _ @ -` or a file that is not private,
    AlreadyExists for a name that has a key.
    """
    if _NAME.fullmatch(name) is None:
        raise NeedsUser(
            "InvalidKeyName",
            f'key name "{name}": use 1 to 63 of A-Z a-z 0-9 . _ @ -, the first a letter or digit',
        )
    secret = PREFIX + (clock or SystemClock()).secret()
    lock = os.open(file.with_name(f".{file.name}.lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = dict(load(file)) if file.exists() else {}
        if name in keys.values():
            raise AlreadyExists("key", name)
        keys[_digest(secret.encode())] = name
        text = "".join(f"{owner} sha256:{digest.hex()}\n" for digest, owner in keys.items())
        write_private(file, text.encode())
    finally:
        os.close(lock)
    return secret


def kept(file: Path, name: str, secret_file: Path, clock: Clock | None = None) -> str:
    """The key in `secret_file` (0600), made once: a program of this account is a client like any other.

    One that is not in `file` any more, or was lost between two steps of an earlier start, is made anew under a name like `name`.
    Raises NeedsUser.
    """
    clock = clock or SystemClock()
    known = load(file) if file.exists() else {}
    if secret_file.exists():
        secret = secret_file.read_text(encoding="ascii", errors="replace").strip()
        if _digest(secret.encode()) in known:
            return secret
    secret = create(file, name if name not in known.values() else f"{name}-{clock.suffix(5)}", clock)
    write_private(secret_file, f"{secret}\n".encode())
    return secret


def load(file: Path) -> Mapping[bytes, str]:
    """Hash to name. Raises NeedsUser, naming file and line, where the file is not private or not of this form."""
    mode = file.stat().st_mode & 0o777
    if mode & 0o077:
        raise NeedsUser(
            "KeysNotPrivate", f"{file}: mode {mode:04o} lets others read or change it; chmod 600 it"
        )
    keys: dict[bytes, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise NeedsUser("InvalidKeysFile", f"{file}:{number}: expected '<name> sha256:<64 hex digits>'")
        keys[bytes.fromhex(match["digest"])] = match["name"]
    return keys


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


class KeyRing:
    """The keys in force; `version` rises whenever they may have changed.

    A file that does not exist yet holds none; a broken one never takes away those that were read.
    """

    def __init__(self, file: Path) -> None:
        """Raises NeedsUser."""
        self._file = file
        self._signature: Signature | None = None
        self.version = 0
        self._keys: Mapping[bytes, str] = {}
        self.reload()

    def reload(self) -> None:
        """Reads the file if it has changed. Raises NeedsUser; the keys stay what they were then."""
        try:
            status = self._file.stat()
            signature = (status.st_ino, status.st_mtime_ns, status.st_size)
            if signature != self._signature:
                self._signature = signature
                self.version += 1
                self._keys = load(self._file)
        except FileNotFoundError:
            if self._signature is not None:
                self.version += 1
            self._signature = None
            self._keys = {}

    def knows(self, secret: bytes | None) -> bool:
        return secret is not None and _digest(secret) in self._keys

    def __len__(self) -> int:
        return len(self._keys)
