"""Alembic's entry: runs the versions on the connection that `llmop.store.migrate` hands over, in its transaction."""

from alembic import context

from llmop.store import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    render_as_batch=True,  # SQLite can't alter most of a table: it is copied
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
