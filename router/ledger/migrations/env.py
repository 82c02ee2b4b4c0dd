"""Alembic runs the history on the connection that `router.ledger.migrate` gives it."""

from __future__ import annotations

from alembic import context

from router.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    # Never in a batch: that copies an SQLite table and drops it, which other tables' rows that refer to it forbid.
    target_metadata=metadata,
)
with context.begin_transaction():
    context.run_migrations()
