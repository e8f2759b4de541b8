"""Keys of the gateway's clients: APIKeys, which come from the controller, and those of a file on this machine. The file holds hashes, one
`<name> sha256:<hex>` per line; such a key may do everything.
"""

import fcntl
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

from llmop.clock import Clock, SystemClock
from llmop.domain.client import KEY_PREFIX, ClientKey, digest
from llmop.domain.errors import AlreadyExists, NeedsUser
from llmop.files import whole

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
# The key of `llmop workloads`, as it is made by `kept`: no name of a person's key, and no name that the controller gives (they have a slash).
OF_WORKLOADS = "workloads"
_RESERVED = re.compile(rf"{OF_WORKLOADS}(-[^/]*)?")
_LINE = re.compile(r"(?P<name>\S+) sha256:(?P<digest>[0-9a-f]{64})")

# Who comes through the door that asks for no key. What such a client owns is kept under the hash of no key.
KEYLESS = ClientKey(name="", digest="")
_OF_NOBODY = digest(b"")

Signature = tuple[int, int, int]


def is_reserved(name: str) -> bool:
    """Whether keys of this name may ask in the name of others, and are not for people."""
    return _RESERVED.fullmatch(name) is not None


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
    secret = KEY_PREFIX + (clock or SystemClock()).secret()
    lock = os.open(file.with_name(f".{file.name}.lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = dict(load(file)) if file.exists() else {}
        if name in keys.values():
            raise AlreadyExists("key", name)
        keys[digest(secret.encode())] = name
        text = "".join(f"{owner} sha256:{found.hex()}\n" for found, owner in keys.items())
        whole.write(file, text.encode(), 0o600)
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
        if digest(secret.encode()) in known:
            return secret
    secret = create(file, name if name not in known.values() else f"{name}-{clock.suffix(5)}", clock)
    whole.write(secret_file, f"{secret}\n".encode(), 0o600)
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


class KeyRing:
    """The keys in force: those of the file, and those that the controller grants. `version` rises whenever they may have changed.

    A file that does not exist yet holds none; a broken one never takes away those that were read. Where both have a key, what the
    controller says of it counts.
    """

    def __init__(self, file: Path, now: float) -> None:
        """Here and below `now` is epoch seconds. Raises NeedsUser."""
        self._file = file
        self._signature: Signature | None = None
        self.version = 0
        self._of_file: Mapping[bytes, str] = {}
        self._granted: tuple[ClientKey, ...] = ()
        self._keys: dict[bytes, ClientKey] = {}
        self._next_end = math.inf
        self.refresh(now)

    def grant(self, keys: tuple[ClientKey, ...], now: float) -> None:
        """Instead of those that were granted before."""
        if keys != self._granted:
            self._granted = keys
            self._compose(now)

    def refresh(self, now: float) -> None:
        """Reads the file if it has changed, and drops what has expired. Raises NeedsUser; the keys of the file stay what they were then."""
        try:
            if self._read():
                self._compose(now)
        finally:
            if now >= self._next_end:
                self._compose(now)

    def _read(self) -> bool:
        try:
            status = self._file.stat()
            signature = (status.st_ino, status.st_mtime_ns, status.st_size)
            if signature == self._signature:
                return False
            self._signature = signature
            self._of_file = load(self._file)
        except FileNotFoundError:
            if self._signature is None:
                return False
            self._signature = None
            self._of_file = {}
        return True

    def _compose(self, now: float) -> None:
        keys = {found: ClientKey(name=name, digest=found.hex()) for found, name in self._of_file.items()}
        self._next_end = math.inf
        for key in self._granted:
            found = bytes.fromhex(key.digest)
            if key.expires_at is None or now < key.expires_at:
                keys[found] = key
                self._next_end = min(self._next_end, key.expires_at or math.inf)
            else:
                keys.pop(found, None)
        self._keys = keys
        self.version += 1

    def find(self, secret: bytes | None) -> ClientKey | None:
        """By its hash, so that how long it takes says nothing about the keys that there are."""
        return None if secret is None else self._keys.get(digest(secret))

    def behind(self, owner: bytes) -> ClientKey | None:
        """The key with the hash `owner` (64 hex digits); None where there is none any more."""
        try:
            found = bytes.fromhex(owner.decode("ascii", "replace"))
        except ValueError:
            return None
        return KEYLESS if found == _OF_NOBODY else self._keys.get(found)

    def __len__(self) -> int:
        return len(self._keys)
