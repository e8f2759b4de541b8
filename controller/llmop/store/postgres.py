"""Postgres: several controllers may share it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from llmop.domain import errors
from llmop.store import database, migrate

_PATIENCE = 10.0
_CONNECTIONS = 10

# "off" loses the newest transactions in a crash. "local" and stronger ones are durable here; they are left as they are.
_DURABLE = sa.text(
    "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
)


class Postgres:
    """Implements `database.Database`.

    A transaction is one job of a thread with the plain driver, as on SQLite: waiting for each statement in the event loop costs several
    times what the statement needs.
    """

    def __init__(self, engine: sa.Engine, installation: str) -> None:
        self.installation = installation
        self._write = engine
        self._read = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._threads = ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="store")

    def is_alone(self) -> bool:
        return False

    async def read(self, ask: Callable[[sa.Connection], database.Result]) -> database.Result:
        return await self._run(self._read, ask)

    async def write(
        self, change: Callable[[sa.Connection], database.Result], *, durable: bool
    ) -> database.Result:
        def make_durable(connection: sa.Connection) -> database.Result:
            connection.execute(_DURABLE)
            return change(connection)

        return await self._run(self._write, make_durable if durable else change)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        self._write.dispose()

    async def _run(
        self, engine: sa.Engine, work: Callable[[sa.Connection], database.Result]
    ) -> database.Result:
        def run() -> database.Result:
            with database.in_words(_explain), engine.connect() as connection:
                return work(connection)

        try:
            job = asyncio.get_running_loop().run_in_executor(self._threads, run)
        except RuntimeError as error:  # the executor was shut down
            raise errors.Unavailable("the Postgres store is closed") from error
        return await job


async def open_postgres(url: sa.URL, *, patience: float = _PATIENCE) -> Postgres:
    """Connects, and makes or upgrades the schema. Raises Unavailable, NeedsUser.

    A controller that pauses in the middle of a transaction loses it after `patience` seconds, before others stop waiting for it.
    """
    milliseconds = int(patience * 1000)
    query = {
        "connect_timeout": "10",
        "tcp_user_timeout": "10000",
        "application_name": "llmop",
        **url.query,
    }
    url = url.set(query=query)
    with database.in_words(_explain):
        installation = await asyncio.to_thread(migrate.upgrade, url)
    engine = sa.create_engine(url, pool_size=_CONNECTIONS // 2, max_overflow=_CONNECTIONS // 2)

    @sa.event.listens_for(engine, "connect")
    def limit_waiting(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(f"SET lock_timeout = {2 * milliseconds}")
        cursor.execute(f"SET idle_in_transaction_session_timeout = {milliseconds}")
        cursor.close()
        connection.autocommit = False

    return Postgres(engine, installation)


def _explain(error: Exception) -> str:
    text = str(error).strip().splitlines() or [type(error).__name__]
    state = getattr(error, "sqlstate", None)
    if state == "53100":
        return f"the disk of the Postgres server is full: {text[0]}"
    if state == "25006":
        return f"this Postgres server takes no writes now; is it a standby? {text[0]}"
    if state == "55P03":
        return f"another controller's transaction doesn't end: {text[0]}"
    return f"the Postgres store doesn't answer: {' '.join(text)}"
