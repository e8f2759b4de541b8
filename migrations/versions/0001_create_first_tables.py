"""Create the first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    installation = op.create_table(
        "installation",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.CheckConstraint("id = 1", name="one_row"),
        sa.PrimaryKeyConstraint("id"),
    )
    assert installation is not None
    counter = op.create_table(
        "counter",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("compacted", sa.BigInteger, nullable=False),
        sa.CheckConstraint("id = 1", name="one_row"),
        sa.PrimaryKeyConstraint("id"),
    )
    assert counter is not None
    op.bulk_insert(counter, [{"id": 1, "revision": 0, "epoch": 0, "holder": "", "compacted": 0}])
    op.create_table(
        "objects",
        sa.Column("uid", name, nullable=False),
        sa.Column("kind", name, nullable=False),
        sa.Column("namespace", name, nullable=False),
        sa.Column("name", name, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("resource_version", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("deleted_at", sa.Double),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("annotations", sa.Text, nullable=False),
        sa.Column("finalizers", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("owned_fields", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("uid"),
        sa.UniqueConstraint("kind", "namespace", "name"),
    )
    op.create_table(
        "events",
        sa.Column("uid", name, nullable=False),
        sa.Column("series", name, nullable=False),
        sa.Column("last_seen_at", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["uid"], ["objects.uid"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("uid"),
    )
    op.create_index("ix_events_series", "events", ["series"])
    op.create_index("ix_events_last_seen_at", "events", ["last_seen_at"])
    op.create_table(
        "ledgers",
        sa.Column("replica_uid", name, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("replica_name", sa.Text, nullable=False),
        sa.Column("cluster", sa.Text, nullable=False),
        sa.Column("job_name", name, nullable=False),
        sa.Column("submission", sa.Text, nullable=False),
        sa.Column("api_key", sa.Text, nullable=False),
        sa.Column("agent_token", sa.Text, nullable=False),
        sa.Column("tombstoned_at", sa.Double),
        sa.PrimaryKeyConstraint("replica_uid"),
        sa.UniqueConstraint("job_name"),
    )
    op.create_index("ix_ledgers_tombstoned_at", "ledgers", ["tombstoned_at"])
    op.create_table(
        "changes",
        sa.Column("revision", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("object", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("revision", "position"),
    )


def downgrade() -> None:
    for table in ("changes", "ledgers", "events", "objects", "counter", "installation"):
        op.drop_table(table)
