"""The migrations make the tables that the code expects."""

from pathlib import Path

import alembic.autogenerate
import alembic.migration
import sqlalchemy as sa

from llmop.store import migrate, tables


def differences(path: Path) -> list[object]:
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.connect() as connection:
        context = alembic.migration.MigrationContext.configure(connection, opts={"compare_type": True})
        return list(alembic.autogenerate.compare_metadata(context, tables.metadata))


def test_the_migrated_schema_is_the_one_of_the_tables(tmp_path: Path) -> None:
    migrate.upgrade(sa.make_url(f"sqlite:///{tmp_path}/store.db"))
    assert [] == differences(tmp_path / "store.db")


def test_names_of_constraints_follow_the_convention(tmp_path: Path) -> None:
    migrate.upgrade(sa.make_url(f"sqlite:///{tmp_path}/store.db"))
    engine = sa.create_engine(f"sqlite:///{tmp_path}/store.db", poolclass=sa.NullPool)
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        assert "pk_objects" == inspector.get_pk_constraint("objects")["name"]
        assert ["uq_objects_kind_namespace_name"] == [
            each["name"] for each in inspector.get_unique_constraints("objects")
        ]
        assert ["fk_events_uid"] == [each["name"] for each in inspector.get_foreign_keys("events")]
        assert ["ck_counter_one_row"] == [each["name"] for each in inspector.get_check_constraints("counter")]


def test_a_second_upgrade_changes_nothing_and_keeps_the_name(tmp_path: Path) -> None:
    url = sa.make_url(f"sqlite:///{tmp_path}/store.db")
    assert migrate.upgrade(url) == migrate.upgrade(url)


def test_a_folder_with_a_percent_sign_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "100%").mkdir()
    assert 6 == len(migrate.upgrade(sa.URL.create("sqlite", database=f"{tmp_path}/100%/store.db")))
