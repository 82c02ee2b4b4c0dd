"""Breakers that recover in stages and warn early: shares, suspects, overrides, probes, counts shared by processes.

Also hands the resolver what the first version left in doubt.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

AT_ONCE = 1000
"""Payments handed over together: some hundred kilobytes."""


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("circuit_transitions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("share", sa.Float(), server_default="1", nullable=False))
        batch_op.add_column(sa.Column("suspect", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("until", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("since", sa.BigInteger(), nullable=True))

    op.create_table(
        "probes",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("nth", sa.Integer(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("healthy", sa.Boolean(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("latency_us", sa.BigInteger(), nullable=True),
        sa.Column("synthetic", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.CheckConstraint("synthetic", name=op.f("ck_probes_synthetic")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_probes")),
        sa.UniqueConstraint("provider", "version", "nth", name=op.f("uq_probes_provider_version_nth")),
    )
    op.create_index("ix_probes_at", "probes", ["at"], unique=False)

    op.create_table(
        "provider_counts",
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("hour", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("normal", sa.Boolean(), nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("unreachable", sa.Integer(), nullable=False),
        sa.Column("slow", sa.Integer(), nullable=False),
        sa.Column("overdue", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("histogram", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("process", "provider", "hour", "version", "normal", name=op.f("pk_provider_counts")),
    )
    op.create_index("ix_provider_counts_updated_at", "provider_counts", ["updated_at"], unique=False)

    _take_up_the_forgotten(op.get_bind())


def _take_up_the_forgotten(connection: sa.Connection) -> None:
    """The first version left a payment in doubt as `processing`, with nobody to find out: the resolver is to.

    Each as any other change of a payment: a version, and an event, so that the ledger still adds up.
    """
    payments = sa.table(
        "payments",
        *(sa.column(name) for name in ("id", "status", "version", "updated_at", "resolve_at", "lease_until")),
    )
    events = sa.table(
        "payment_events",
        *(sa.column(name) for name in ("payment_id", "version", "type", "at")),
        sa.column("changes", sa.JSON(none_as_null=True)),
    )
    forgotten = (
        sa.select(payments.c.id, payments.c.version, payments.c.updated_at)
        .where(payments.c.status == "processing", payments.c.resolve_at.is_(None), payments.c.lease_until.is_(None))
        .limit(AT_ONCE)
    )
    one = (
        payments.update()
        .where(payments.c.id == sa.bindparam("of"), payments.c.version == sa.bindparam("seen"))
        .values(resolve_at=payments.c.updated_at, version=payments.c.version + 1)
    )
    while found := connection.execute(forgotten).all():
        for payment_id, version, updated_at in found:
            # An old process may be at work beside this: what it has changed meanwhile is not forgotten.
            if connection.execute(one, {"of": payment_id, "seen": version}).rowcount == 0:
                continue
            changes = {"resolve_at": updated_at, "version": version + 1}
            connection.execute(
                events.insert(),
                {"payment_id": payment_id, "version": version + 1, "type": "taken_up", "changes": changes}
                | {"at": updated_at},
            )
