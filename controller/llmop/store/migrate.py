"""Brings a database to the schema of this version.

A new migration: change `tables.py`, then `python -m llmop.store.migrate "Say what it does"` in the checkout, and read what it wrote.
"""

import re
import sys
import tempfile
import threading
import types
from collections.abc import Mapping
from pathlib import Path

import alembic.command
import alembic.config
import alembic.util
import sqlalchemy as sa

from llmop import clock
from llmop.domain import errors, ids
from llmop.store import tables

_ADVISORY_LOCK = 0x6C6C6D6F70  # "llmop"

_alembic = threading.Lock()  # its `op` and `context` are global to the process


def migrations_folder() -> Path:
    """In a wheel it lies beside this file, in a checkout at the top."""
    packaged = Path(__file__).parent / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "migrations"


def upgrade(url: sa.URL, pragmas: Mapping[str, str] = types.MappingProxyType({})) -> str:
    """Makes or upgrades the schema in one transaction and returns the installation's name. Blocks; for a thread.

    `pragmas` are set on SQLite first.
    Several may do this at once: on Postgres they wait for each other, an SQLite database has one process only.
    Raises NeedsUser when a newer version made the database; errors of the database pass through.
    """
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    sqlite = engine.dialect.name == "sqlite"
    if sqlite:

        @sa.event.listens_for(engine, "connect")
        def take_transactions_over(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
            # Foreign keys stay off here: copying a table in a migration drops the old one, and its rows' dependents.
            connection.isolation_level = None
            cursor = connection.cursor()
            for name, value in pragmas.items():
                cursor.execute(f"PRAGMA {name}={value}")
            cursor.close()

        @sa.event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.begin() as connection:
        if not sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        with _alembic:
            try:
                alembic.command.upgrade(_config(connection), "head")
            except alembic.util.CommandError as error:
                if "Can't locate revision" not in str(error):
                    raise
                raise errors.NeedsUser(
                    "StoreTooNew",
                    f"a newer version of llmop has made this database ({error}): install that version again",
                ) from error
        if sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
            raise errors.Unavailable(f"rows of table {broken[0]} refer to rows that are gone")
        return _installation(connection)


def _installation(connection: sa.Connection) -> str:
    name = connection.scalar(sa.select(tables.installation.c.name))
    if name is None:
        name = clock.SystemClock().suffix(ids.INSTALLATION_LENGTH)
        connection.execute(tables.installation.insert().values(id=1, name=name))
    return str(name)


def _config(connection: sa.Connection) -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def new_version(message: str) -> None:
    """Writes the next file of `migrations/versions`: the difference between the newest one and `tables.py`."""
    existing = [path.name[:4] for path in (migrations_folder() / "versions").glob("[0-9]*.py")]
    number = f"{max(map(int, existing), default=0) + 1:04d}"
    with tempfile.TemporaryDirectory() as folder:
        url = sa.URL.create("sqlite", database=f"{folder}/new.db")
        upgrade(url)
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            config = _config(connection)
            slug = re.sub(r"[^a-z0-9]+", "_", message.lower()).strip("_")
            config.set_main_option("file_template", f"%%(rev)s_{slug}")
            alembic.command.revision(config, message=message, rev_id=number, autogenerate=True)


if __name__ == "__main__":
    new_version(sys.argv[1])
