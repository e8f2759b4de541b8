"""The directory that the controller and all nodes of a cluster see."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from llmop.cluster import file_threads
from llmop.domain import endings, ids, replica
from llmop.files import whole

PARTS = ("agent", "replicas", "claims", "inbox", "images", "models")
GUARDED = (
    "agent",
    "replicas",
    "claims",
    "inbox",
    "simulator",
)  # jobs run what lies here; models and images may be a team's
END_LIMIT = 256 * 1024  # bytes of an exit.json; the longest that an agent writes is a tenth of it


def fingerprint(ca: str) -> str:
    """Of a CA as PEM text."""
    return hashlib.sha256(ca.encode()).hexdigest()


class SharedDirectory(Protocol):
    """Everything raises OSError when the file system does not take it."""

    async def prepare(self, name: str, config: Mapping[str, Any]) -> None:
        """Makes the directory of a replica with its replica.json (0600)."""
        ...

    async def read_end(self, name: str) -> replica.End | None:
        """The agent's own death record, None when there is none (yet) or it makes no sense."""
        ...

    async def clear(self, name: str) -> int:
        """Removes the working directories of a replica that is over, and says how many there were. They hold secrets, and an agent
        that was killed leaves them.
        """
        ...


class DiskDirectory:
    """A SharedDirectory on a file system. What is a coroutine here runs in threads, and is given up in time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._threads = file_threads.FileThreads("shared-directory", 2)
        self._clearing = file_threads.FileThreads(
            "clear"
        )  # minutes, for many small files: nobody waits behind it

    def install(self, agent: bytes, simulator: Path) -> str:
        """Makes the layout and puts the agent there by its content hash; returns the agent's path.

        Raises OSError, also where others could put something in the place of what jobs run as this account.
        """
        self._make_root()
        for part in PARTS:
            (self.root / part).mkdir(mode=0o700, exist_ok=True)
        if danger := self._danger():
            raise PermissionError(errno.EPERM, danger, str(self.root))
        digest = hashlib.sha256(agent).hexdigest()[:16]
        path = self.root / "agent" / f"{digest}.py"
        if not path.exists():
            whole.write(path, agent, 0o600)
        self._install_simulator(simulator)
        return str(path)

    def _make_root(self) -> None:
        """Nothing above it: where a file system is not mounted that would be written below its mount point."""
        missing = [each for each in self.root.parents if not each.exists()]
        if missing:
            words = f"{missing[-1]} is not there: mount its file system, or make {self.root.parent}; llmop makes {self.root} alone"
            raise FileNotFoundError(errno.ENOENT, words, str(self.root))
        self.root.mkdir(mode=0o700, exist_ok=True)

    def has_replicas(self) -> bool:
        """Whether there is a place for replicas. Where some run and it is gone, the file system is most likely not mounted."""
        return (self.root / "replicas").exists()

    def vanished(self, replicas: Sequence[str]) -> OSError:
        """What to say where these replicas may run and there is no place for them."""
        shown = ", ".join(sorted(replicas)[:3]) + (
            f" and {len(replicas) - 3} more" if len(replicas) > 3 else ""
        )
        words = (
            f"{self.root}/replicas has vanished, and replicas may run whose files lie there ({shown}): mount its file system;"
            f" if it was deleted for good, mkdir -p {self.root}/replicas"
        )
        return FileNotFoundError(errno.ENOENT, words, str(self.root))

    def _install_simulator(self, source: Path) -> None:
        """The simulator runs inside containers, which see the shared directory but not this installation."""
        files = sorted(source.glob("*.py"))
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
        target = self.root / "simulator"
        mark = target / f".{digest}"
        if mark.exists():
            return
        fresh = self.root / f".simulator-{secrets.token_hex(4)}"
        fresh.mkdir(mode=0o700)
        for file in files:
            shutil.copyfile(file, fresh / file.name)
        (fresh / mark.name).touch()
        old = self.root / f".simulator-{secrets.token_hex(4)}"
        if target.exists():
            target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old, ignore_errors=True)

    def is_complete(self, agent: str, ca: str) -> bool:
        """Whether what `install` and `publish` have put there is there: sites delete files that nobody has changed for weeks, and another
        installation may have been told of the same directory."""
        parts = (Path(agent), self.root / "controllers.json", *(self.root / part for part in PARTS))
        return (
            all(path.exists() for path in parts)
            and self.authority() == fingerprint(ca)
            and not self._danger()
        )

    def reserve(self, installation: str) -> None:
        """Raises OSError while replicas of another installation here may be alive: their agents read in this directory where their
        controller is, and have no other place to look."""
        for directory in _entries(self.root / "replicas"):
            other = _installation_of(directory)
            if other not in ("", installation) and not (directory / "exit.json").exists():
                words = (
                    f"installation {other} has the replica {directory.name} here; give every installation a directory of its own,"
                    f" or remove {directory} when its job is over and that installation is gone"
                )
                raise FileExistsError(errno.EEXIST, words, str(self.root))

    def _danger(self) -> str:
        """Who else could change what jobs run, as a sentence; "" when nobody can. Raises OSError."""
        where = (self.root, *(self.root / part for part in GUARDED))
        return next((problem for path in where if path.exists() and (problem := self._danger_at(path))), "")

    def _danger_at(self, path: Path) -> str:
        # People may reach their directory over a link; what lies in it was made by llmop.
        found = path.stat() if path == self.root else path.lstat()
        way_out = "name a directory that is not there yet, and llmop makes it private"
        if not stat.S_ISDIR(found.st_mode):
            return f"{path} is a symbolic link or a file; remove it, or {way_out}"
        if found.st_uid != os.geteuid():
            return f"{path} belongs to user id {found.st_uid}, not to you ({os.geteuid()}); {way_out}"
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o022:
            return f"others can change {path} (mode {mode:04o}), and so run programs as you; chmod go-w it, or {way_out}"
        return ""

    def publish(self, urls: Sequence[str], ca: str) -> None:
        """Tells agents where the controller listens, and other controllers which CA the agents trust. Raises OSError."""
        content = {"version": 1, "urls": list(urls), "authority": fingerprint(ca)}
        whole.write(self.root / "controllers.json", json.dumps(content).encode(), 0o600)

    def authority(self) -> str:
        """The fingerprint of the CA that agents here trust, "" when nobody has said."""
        try:
            return str(json.loads((self.root / "controllers.json").read_bytes())["authority"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    async def prepare(self, name: str, config: Mapping[str, Any]) -> None:
        await self._threads.run(self._prepare, name, config)

    def _prepare(self, name: str, config: Mapping[str, Any]) -> None:
        directory = self.root / "replicas" / name
        directory.mkdir(mode=0o700, exist_ok=True)
        whole.write(directory / "replica.json", json.dumps(config, indent=1).encode(), 0o600)

    async def read_end(self, name: str) -> replica.End | None:
        return await self._threads.run(self._read_end, name)

    def _read_end(self, name: str) -> replica.End | None:
        try:
            with (self.root / "replicas" / name / "exit.json").open("rb") as file:
                content = file.read(END_LIMIT)
            return endings.end_of(json.loads(content))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            # A torn or foreign file says nothing; Slurm's own words are used instead.
            return None

    async def clear(self, name: str) -> int:
        return await self._clearing.run(self._clear, name)

    def _clear(self, name: str) -> int:
        scratch = self.root / "replicas" / name / "scratch"
        if not scratch.exists():
            return 0
        left = len(list(scratch.iterdir()))
        shutil.rmtree(scratch)
        return left

    def entries(self) -> tuple[list[Path], list[Path]]:
        """The directories of replicas and the claims that are there now."""
        return _entries(self.root / "replicas"), _entries(self.root / "claims")

    def sweep(
        self,
        found: tuple[list[Path], list[Path]],
        installation: str,
        replicas: frozenset[str],
        jobs: frozenset[str],
        ended: frozenset[str],
    ) -> None:
        """Removes those of `found` that nobody remembers any more, and what `clear` removes of the replicas that have `ended`: a
        controller that was stopped before it came to that has left it.

        They were listed before the ledger was read, so what was made since is not among them. What another installation has put
        here by mistake is left alone.
        """
        directories, links = found
        for directory in directories:
            if directory.name not in replicas and _installation_of(directory) == installation:
                shutil.rmtree(directory, ignore_errors=True)
            elif directory.name in ended:
                with contextlib.suppress(OSError):
                    self._clear(directory.name)
        for link in links:
            name = _claimant(link)
            parts = ids.parse_job_name(name)
            if name not in jobs and parts is not None and parts.installation == installation:
                with contextlib.suppress(OSError):
                    link.unlink()


def _claimant(link: Path) -> str:
    """The job of a claim, or of what an agent that was killed while it made one has left: <job name>.<node>.<pid>.tmp. A job whose
    agent may be at that very moment is one that the ledger knows.
    """
    job_name, _, rest = link.name.partition(".")
    return job_name if rest.endswith(".tmp") else link.name


def _installation_of(directory: Path) -> str:
    try:
        return str(json.loads((directory / "replica.json").read_bytes())["installation"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []
