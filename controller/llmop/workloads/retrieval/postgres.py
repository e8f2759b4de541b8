"""Connections to the Postgres server of vector stores: statements with question marks, errors in words, a schema with a number.

Everything is a job of a thread with the plain driver: the event loop waits for no server.
"""

import asyncio
import queue
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import conninfo

from llmop.clock import SystemClock
from llmop.domain.errors import NeedsUser, Unavailable
from llmop.workloads.retrieval.statements import Connection, Rows

T = TypeVar("T")

_CLOCK = SystemClock()
SCHEMA = "llmop_vectors"
OLDEST_SERVER = 13  # the oldest that its makers still look after when this was written is 14
OLDEST_EXTENSION = (0, 5, 0)
_FORMAT = 1
_READERS = 4
_LOCK_WAIT_S = 10  # a server may take a moment to see that a killed process is gone
# How long a statement may take: a search is waited for, and the removal of a large store takes minutes. Where the role, the database or the
# address says another `statement_timeout`, that counts.
_READ_S, _WRITE_S = 60, 600
_GRACE_S = 10  # for a server to say that a time is over
_LOCK = 0x6C6C6D6F70  # "llmop": of advisory locks, one for each database
_USUAL = {
    "connect_timeout": "10",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "application_name": "llmop workloads",
}
# Names mean what the server has and what lies in our schema, never what other roles make in `public` or beside the extension: what is
# the extension's is named with its schema (EXTENSION in statements). pg_catalog comes first where it is not named.
_SESSION = f"""
SELECT pg_catalog.set_config('search_path', '{SCHEMA}, pg_temp', false),
  pg_catalog.set_config('lock_timeout', pg_catalog.concat(CAST(%s AS text), 's'), false),
  CASE pg_catalog.current_setting('statement_timeout')
    WHEN '0' THEN pg_catalog.set_config('statement_timeout', pg_catalog.concat(CAST(%s AS text), 's'), false) END
"""
_PATIENCE = (
    "SELECT CAST(setting AS double precision) / 1000 FROM pg_settings WHERE name = 'statement_timeout'"
)
_EXTENSION = "EXTENSION."
_ADDRESS = "say postgresql://user@host/database"


class Address(NamedTuple):
    """`shown` has no password."""

    parameters: dict[str, Any]
    shown: str


def address(url: str) -> Address:
    """Raises NeedsUser."""
    kind, mark, rest = url.partition("://")
    if not mark or kind.partition("+")[0] not in ("postgresql", "postgres"):
        # Not the text itself: a password may stand in it.
        raise NeedsUser("BadVectorsAddress", f"the address of vector stores is none of Postgres: {_ADDRESS}")
    try:
        given = conninfo.conninfo_to_dict(f"postgresql://{rest}")
    except psycopg.Error:
        raise NeedsUser(
            "BadVectorsAddress", f"the address of vector stores cannot be read: {_ADDRESS}"
        ) from None
    where = given.get("host") or given.get("hostaddr") or "localhost"
    shown = f"postgresql://{where}" + (f":{given['port']}" if given.get("port") else "")
    return Address({**_USUAL, **given, "client_encoding": "UTF8"}, f"{shown}/{given.get('dbname', '')}")


class TooSlow(Unavailable):
    """The server has not done it in the time that `setting` of Postgres allows."""

    def __init__(self, message: str, setting: str) -> None:
        super().__init__(message)
        self.setting = setting


class _Silent(psycopg.OperationalError):
    """Nothing came: a server that stands still ends no statement."""


class _Bounded(psycopg.Connection[Any]):
    """Does not wait for ever. `patience_s` is for one statement."""

    patience_s = float(_READ_S)

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:
        return super().wait(self._bounded(gen), *args, **options)

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """The driver comes back with nothing in its hands about ten times a second."""
        until = _CLOCK.monotonic() + self.patience_s
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and _CLOCK.monotonic() > until:
                    self.pgconn.finish()
                    raise _Silent(f"nothing came in {self.patience_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            found: T = end.value
            return found


class Postgres:
    """One connection writes, under a lock that keeps other processes out of the schema for as long as it lives; a few read."""

    def __init__(self, url: str, tables: str, installation: str) -> None:
        """Touches nothing. `tables` are the statements that make them; they belong to `installation`. Raises NeedsUser."""
        self._address = address(url)
        self._tables = tables
        self._installation = installation
        self._where = ""  # the extension's schema as statements have it, once it is known
        self._writer: _Bounded | None = None
        self._readers: queue.LifoQueue[_Bounded] = queue.LifoQueue()
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix="vectors-write")
        self._read_threads = ThreadPoolExecutor(_READERS, thread_name_prefix="vectors-read")

    async def prepare(self) -> None:
        """Makes the schema where it is not there. Raises NeedsUser for what a person has to change, Unavailable."""
        await self._in(self._write_thread, self._open_writer)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """All of its statements see the same. Raises Unavailable."""
        if not self._where:
            await self._in(self._write_thread, self._used_writer)
        return await self._in(self._read_threads, lambda: self._read(work))

    async def write(self, work: Callable[[Connection], T]) -> T:
        """In one transaction, one after the other. Raises Unavailable, also where it cannot be said whether it was committed."""
        return await self._in(self._write_thread, lambda: self._transact(self._used_writer(), work, "BEGIN"))

    async def close(self) -> None:
        def close() -> None:
            if self._writer is not None:
                self._writer.close()
            while not self._readers.empty():
                self._readers.get_nowait().close()

        await asyncio.to_thread(self._read_threads.shutdown)
        await self._in(self._write_thread, close)
        self._write_thread.shutdown()

    async def _in(self, threads: ThreadPoolExecutor, job: Callable[[], T]) -> T:
        def run() -> T:
            try:
                return job()
            except psycopg.Error as error:
                if (setting := _overdue(error)) is not None:
                    raise TooSlow(
                        f"{self._address.shown}: {' '.join(str(error).split())} ({setting})", setting
                    ) from error
                words = _words(error)
                if words is None:
                    raise
                raise Unavailable(f"{self._address.shown}: {words}") from error

        return await asyncio.get_running_loop().run_in_executor(threads, run)

    def _read(self, work: Callable[[Connection], T]) -> T:
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        try:
            connection = self._readers.get_nowait()
            if not _can(connection, begin):  # the server was away meanwhile
                raise queue.Empty
        except queue.Empty:
            connection = self._connect(_READ_S)
            connection.execute(begin)
        try:
            result = self._transact(connection, work, "")
        except BaseException:
            connection.close()
            raise
        self._readers.put(connection)
        return result

    def _transact(self, connection: _Bounded, work: Callable[[Connection], T], begin: str) -> T:
        if begin:
            connection.execute(begin)
        try:
            result = work(_Marked(connection, self._where))
            connection.execute("COMMIT")
        except BaseException:
            _can(connection, "ROLLBACK")
            raise
        return result

    def _used_writer(self) -> _Bounded:
        if self._writer is not None and not self._writer.closed and _can(self._writer, "SELECT 1"):
            return self._writer
        try:
            return self._open_writer()
        except NeedsUser as error:  # the server is another one than at the start
            raise Unavailable(str(error)) from error

    def _open_writer(self) -> _Bounded:
        connection = self._connect(_WRITE_S)
        try:
            self._take(connection)
            schema = self._extension(connection).replace('"', '""')
            where = f'"{schema}".'
            connection.execute("BEGIN")
            self._settle(connection, where)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        self._writer, self._where = connection, where
        return connection

    def _connect(self, statement_s: int) -> _Bounded:
        """`statement_s` is how long a statement may take where nobody says it."""
        # Statements are put together here: a value's type is then what its place asks for, and a pool in between has nothing to remember.
        connection = _Bounded.connect(
            **self._address.parameters, autocommit=True, cursor_factory=psycopg.ClientCursor
        )
        try:
            self._begin_session(connection, statement_s)
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin_session(self, connection: _Bounded, statement_s: int) -> None:
        connection.execute(_SESSION.encode(), (_LOCK_WAIT_S, statement_s))
        (allowed_s,) = connection.execute(_PATIENCE).fetchone() or (statement_s,)
        connection.patience_s = allowed_s + _GRACE_S

    def _take(self, connection: _Bounded) -> None:
        """This connection's, for as long as it lives."""
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled):  # whichever time is shorter
            message = (
                f"{self._address.shown}: another llmop workloads uses the vector stores there: end that, or name another database by"
                " --vectors"
            )
            raise NeedsUser("InUse", message) from None

    def _extension(self, connection: _Bounded) -> str:
        """The schema that the extension `vector` lies in, where it is or can be made."""
        shown = self._address.shown
        if problem := too_old_server(connection.info.server_version):
            raise NeedsUser("PostgresTooOld", f"{shown}: {problem}")
        if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
            message = (
                f"{shown}: this database has the encoding {encoding}, and documents have all letters there are: name one by --vectors that"
                " was made with CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0;"
            )
            raise NeedsUser("WrongEncoding", message)
        query = (
            "SELECT e.extversion, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
            " WHERE e.extname = 'vector'"
        )
        found = connection.execute(query).fetchone()
        if found is None:
            known = "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"
            if connection.execute(known).fetchone() is None:
                major = connection.info.server_version // 10_000
                message = (
                    f"{shown}: this Postgres server has no pgvector: install it there (Debian and Ubuntu: the package"
                    f" postgresql-{major}-pgvector), or leave --vectors out"
                )
                raise NeedsUser("NoPgvector", message)
            try:
                # It is to lie where others find it, not in our schema.
                connection.execute("RESET search_path")
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                self._begin_session(connection, _WRITE_S)
            except psycopg.errors.InsufficientPrivilege:
                message = (
                    f"{shown}: the role {connection.info.user} may not make the extension `vector`:"
                    f" have a superuser run CREATE EXTENSION vector; in the database {connection.info.dbname}"
                )
                raise NeedsUser("NoRight", message) from None
            found = connection.execute(query).fetchone()
        assert found is not None
        version, schema = found
        if problem := too_old_extension(version):
            raise NeedsUser("PgvectorTooOld", f"{shown}: {problem}")
        return str(schema)

    def _settle(self, connection: _Bounded, where: str) -> None:
        shown = self._address.shown
        (there,) = connection.execute(f"SELECT to_regclass('{SCHEMA}.about')").fetchone() or (None,)
        if there is None:
            try:
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            except psycopg.errors.InsufficientPrivilege:
                name, role = connection.info.dbname, connection.info.user
                message = (
                    f"{shown}: the role {role} may not make a schema:"
                    f" have the owner of the database run GRANT CREATE ON DATABASE {name} TO {role};"
                )
                raise NeedsUser("NoRight", message) from None
            connection.execute(self._tables.replace(_EXTENSION, where).encode())
            connection.execute("INSERT INTO about VALUES (%s, %s)", (_FORMAT, self._installation))
        version, installation = connection.execute("SELECT format, installation FROM about").fetchone() or (
            0,
            "",
        )
        if version > _FORMAT:
            raise NeedsUser(
                "NewerDatabase", f"{shown}: the vector stores were made by a newer llmop: run that one"
            )
        if installation != self._installation:
            message = (
                f"{shown}: the vector stores there belong to another installation, whose files are in its own state directory:"
                f" name another database by --vectors; where that installation is gone for good, run DROP SCHEMA {SCHEMA} CASCADE;"
            )
            raise NeedsUser("OtherInstallation", message)


class _Marked:
    """Takes question marks for values, and knows where the extension lies. Postgres has no text with a NUL in it: such a character becomes
    what stands for unreadable ones.
    """

    def __init__(self, connection: psycopg.Connection[Any], where: str) -> None:
        self._connection = connection
        self._where = where

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        taken = [value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in values]
        where = self._where.replace("%", "%%") if taken else self._where
        marked = statement.replace("?", "%s").replace(_EXTENSION, where)
        return self._connection.execute(marked.encode(), taken or None)


def too_old_server(version: int) -> str:
    """Of a server that says it has this `version` (130005 for 13.5); "" where it is not."""
    if version >= OLDEST_SERVER * 10_000:
        return ""
    return f"this Postgres server is version {version // 10_000}: vector stores need {OLDEST_SERVER} or newer"


def too_old_extension(version: str) -> str:
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    if numbers >= OLDEST_EXTENSION:
        return ""
    needed = ".".join(map(str, OLDEST_EXTENSION))
    return f"pgvector is version {version} there, and vector stores need {needed} or newer: install that, and run ALTER EXTENSION vector UPDATE;"


def _can(connection: psycopg.Connection[Any], statement: str) -> bool:
    """Whether the server has done it; else the connection is closed."""
    try:
        connection.execute(statement.encode())
    except psycopg.Error:
        connection.close()
        return False
    return True


def _words(error: psycopg.Error) -> str | None:
    """What stands in the way; None for a defect of ours."""
    text = " ".join(str(error).split()) or type(error).__name__
    if error.sqlstate == "53100":
        return f"the disk of the Postgres server is full: {text}"
    if error.sqlstate == "25006":
        return f"this Postgres server takes no writes now; is it a standby? {text}"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"the role of llmop workloads may not do this any more: {text}"
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        return f"the tables of vector stores are gone: {text}"
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | psycopg.InternalError):
        return f"the Postgres server of vector stores does not answer: {text}"
    return None


def _overdue(error: psycopg.Error) -> str | None:
    """The setting of Postgres that says how long it may take, of what took longer."""
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return "lock_timeout"
    if isinstance(error, psycopg.errors.QueryCanceled | _Silent):
        return "statement_timeout"
    return "connect_timeout" if isinstance(error, psycopg.errors.ConnectionTimeout) else None
