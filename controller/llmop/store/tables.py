"""The tables, the same on SQLite and Postgres. `migrations/` makes them; a test holds the two together.

What is only carried is canonical JSON text; columns are what statements ask for.
"""

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# Names sort by code point on every database, whatever its locale.
_Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

installation = sa.Table(
    "installation",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="one_row"), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
)

# One row. Every write transaction begins with an update of it: that orders the transactions, and refuses old epochs.
counter = sa.Table(
    "counter",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="one_row"), primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("compacted", sa.BigInteger, nullable=False),  # changes up to and with this revision are gone
)

objects = sa.Table(
    "objects",
    metadata,
    sa.Column("uid", _Name, primary_key=True),
    sa.Column("kind", _Name, nullable=False),
    sa.Column("namespace", _Name, nullable=False),
    sa.Column("name", _Name, nullable=False),
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
    sa.UniqueConstraint("kind", "namespace", "name"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("uid", _Name, sa.ForeignKey("objects.uid", ondelete="CASCADE"), primary_key=True),
    sa.Column("series", _Name, nullable=False, index=True),
    sa.Column("last_seen_at", sa.Double, nullable=False, index=True),
)

ledgers = sa.Table(
    "ledgers",
    metadata,
    sa.Column("replica_uid", _Name, primary_key=True),
    sa.Column("namespace", sa.Text, nullable=False),
    sa.Column("replica_name", sa.Text, nullable=False),
    sa.Column("cluster", sa.Text, nullable=False),
    sa.Column("job_name", _Name, nullable=False, unique=True),
    sa.Column("submission", sa.Text, nullable=False),
    sa.Column("api_key", sa.Text, nullable=False),
    sa.Column("agent_token", sa.Text, nullable=False),
    sa.Column("tombstoned_at", sa.Double, index=True),
)

usage = sa.Table(
    "usage",
    metadata,
    sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", _Name, primary_key=True),
    sa.Column("model", _Name, primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("estimated", sa.BigInteger, nullable=False),
    sa.Column("limited", sa.BigInteger, nullable=False),
)

# The last batch of each spool that was counted.
usage_spools = sa.Table(
    "usage_spools",
    metadata,
    sa.Column("spool", _Name, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)

changes = sa.Table(
    "changes",
    metadata,
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("object", sa.Text, nullable=False),
)
