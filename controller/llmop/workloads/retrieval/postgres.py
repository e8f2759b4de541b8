"""Connections to the Postgres server of vector stores: statements with question marks, errors in words, a schema with a number.

Everything is a job of a thread with the plain driver: the event loop waits for no server.
"""

import asyncio
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import conninfo

from llmop.domain.errors import NeedsUser, Unavailable
from llmop.workloads.retrieval.statements import Connection, Rows

T = TypeVar("T")

SCHEMA = "llmop_vectors"
OLDEST_SERVER = 13  # the oldest that its makers still look after when this was written is 14
OLDEST_EXTENSION = (0, 5, 0)
_FORMAT = 1
_READERS = 4
_LOCK_WAIT_S = 10  # a server may take a moment to see that a killed process is gone
_LOCK = 0x6C6C6D6F70  # "llmop": of advisory locks, one for each database
_USUAL = {
    "connect_timeout": "10",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "application_name": "llmop workloads",
}
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


class Postgres:
    """One connection writes, under a lock that keeps other processes out of the schema for as long as it lives; a few read."""

    def __init__(self, url: str, tables: str, installation: str) -> None:
        """Touches nothing. `tables` are the statements that make them; they belong to `installation`. Raises NeedsUser."""
        self._address = address(url)
        self._tables = tables
        self._installation = installation
        self._path = ""  # search path, once it is known where the extension lies
        self._writer: psycopg.Connection[Any] | None = None
        self._readers: queue.LifoQueue[psycopg.Connection[Any]] = queue.LifoQueue()
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix="vectors-write")
        self._read_threads = ThreadPoolExecutor(_READERS, thread_name_prefix="vectors-read")

    async def prepare(self) -> None:
        """Makes the schema where it is not there. Raises NeedsUser for what a person has to change, Unavailable."""
        await self._in(self._write_thread, self._open_writer)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """All of its statements see the same. Raises Unavailable."""
        if not self._path:
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
            connection = self._connect()
            connection.execute(f"SET search_path = {self._path}")
            connection.execute(begin)
        try:
            result = self._transact(connection, work, "")
        except BaseException:
            connection.close()
            raise
        self._readers.put(connection)
        return result

    def _transact(
        self, connection: psycopg.Connection[Any], work: Callable[[Connection], T], begin: str
    ) -> T:
        if begin:
            connection.execute(begin)
        try:
            result = work(_Marked(connection))
            connection.execute("COMMIT")
        except BaseException:
            _can(connection, "ROLLBACK")
            raise
        return result

    def _used_writer(self) -> psycopg.Connection[Any]:
        if self._writer is not None and not self._writer.closed and _can(self._writer, "SELECT 1"):
            return self._writer
        try:
            return self._open_writer()
        except NeedsUser as error:  # the server is another one than at the start
            raise Unavailable(str(error)) from error

    def _open_writer(self) -> psycopg.Connection[Any]:
        connection = self._connect()
        try:
            self._take(connection)
            where = self._extension(connection)
            connection.execute("BEGIN")
            self._settle(connection, where)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        self._writer = connection
        return connection

    def _connect(self) -> psycopg.Connection[Any]:
        # Statements are put together here: a value's type is then what its place asks for, and a pool in between has nothing to remember.
        return psycopg.connect(
            **self._address.parameters, autocommit=True, cursor_factory=psycopg.ClientCursor
        )

    def _take(self, connection: psycopg.Connection[Any]) -> None:
        """This connection's, for as long as it lives."""
        connection.execute(f"SET lock_timeout = '{_LOCK_WAIT_S}s'")
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        except psycopg.errors.LockNotAvailable:
            message = (
                f"{self._address.shown}: another llmop workloads uses the vector stores there: end that, or name another database by"
                " --vectors"
            )
            raise NeedsUser("InUse", message) from None

    def _extension(self, connection: psycopg.Connection[Any]) -> str:
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
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
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

    def _settle(self, connection: psycopg.Connection[Any], extension: str) -> None:
        shown = self._address.shown
        # Unnamed, pg_catalog comes first: whoever may make functions beside the extension does not get ours called in the server's stead.
        path = f'{SCHEMA}, "{extension.replace(chr(34), chr(34) * 2)}"'
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
            connection.execute(f"SET search_path = {path}")
            connection.execute(self._tables.encode())
            connection.execute("INSERT INTO about VALUES (%s, %s)", (_FORMAT, self._installation))
        connection.execute(f"SET search_path = {path}")
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
        self._path = path


class _Marked:
    """Takes question marks for values. Postgres has no text with a NUL in it: such a character becomes what stands for unreadable ones."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        taken = [value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in values]
        return self._connection.execute(statement.replace("?", "%s").encode(), taken or None)


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
