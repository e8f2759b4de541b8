"""Postgres: several controllers may share it."""

import asyncio
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from llmop.store import database, migrate

_PATIENCE = 10.0

# "off" loses the newest transactions in a crash. "local" and stronger ones are durable here; they are left as they are.
_DURABLE = sa.text(
    "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
)


class Postgres:
    """Implements `database.Database`."""

    def __init__(self, engine: AsyncEngine, installation: str) -> None:
        self.installation = installation
        self._write = engine
        self._read = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def is_alone(self) -> bool:
        return False

    async def read(self, ask: Callable[[sa.Connection], database.Result]) -> database.Result:
        with database.in_words(_explain):
            async with self._read.connect() as connection:
                return await connection.run_sync(ask)

    async def write(
        self, change: Callable[[sa.Connection], database.Result], *, durable: bool
    ) -> database.Result:
        with database.in_words(_explain):
            async with self._write.connect() as connection:
                if durable:
                    await connection.execute(_DURABLE)
                return await connection.run_sync(change)

    async def close(self) -> None:
        await self._write.dispose()


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
    engine = create_async_engine(url, pool_size=5, max_overflow=5, pool_timeout=2 * _PATIENCE)

    @sa.event.listens_for(engine.sync_engine, "connect")
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
