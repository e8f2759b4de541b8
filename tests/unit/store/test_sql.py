"""SQLite releases before 3.35, which system Pythons on older clusters bring, have no RETURNING."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from llmop.domain import errors
from llmop.store import migrate, sql


@pytest.mark.parametrize("returning", [True, False])
def test_the_counter_orders_and_fences_with_and_without_returning(tmp_path: Path, returning: bool) -> None:
    migrate.upgrade(sa.make_url(f"sqlite:///{tmp_path}/store.db"))
    engine = sa.create_engine(f"sqlite:///{tmp_path}/store.db", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.dialect.update_returning = returning
        assert [1, 2, 3] == [
            sql._next_revision(connection, None),
            sql._next_revision(connection, 0),
            sql._next_revision(connection, None),
        ]
        with pytest.raises(errors.Deposed):
            sql._next_revision(connection, 7)
