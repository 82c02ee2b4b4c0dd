"""The reports' rollup: what each payment adds, its sums by hour and day, and how far they are.

Revision ID: 0014
Revises: 0009, 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = ("0009", "0011")

# As they were when this was written: a later version's measures are a later migration's.
COUNT, MONEY = "count", "money"
MEASURES = (
    ("payments", COUNT),
    ("approved", COUNT),
    ("declined", COUNT),
    ("failed", COUNT),
    ("canceled", COUNT),
    ("open", COUNT),
    ("amount", MONEY),
    ("approved_amount", MONEY),
    ("captured_amount", MONEY),
    ("refunded_amount", MONEY),
    ("captured_in_period", MONEY),
    ("refunded_in_period", MONEY),
    ("first_answers", COUNT),
    ("first_approvals", COUNT),
    ("attempts", COUNT),
    ("attempts_approved", COUNT),
    ("attempts_not_executed", COUNT),
    ("attempts_in_doubt", COUNT),
    ("declines_soft", COUNT),
    ("declines_hard", COUNT),
    ("declines_fraud", COUNT),
    ("declines_authentication", COUNT),
    ("declines_invalid", COUNT),
    ("declines_other", COUNT),
    ("fee_estimated", MONEY),
    ("fee_actual", MONEY),
    ("fee_estimated_of_actual", MONEY),
    ("fees_told", COUNT),
    ("fees_told_otherwise", COUNT),
    ("cost", MONEY),
    ("failed_over", COUNT),
    ("cascaded", COUNT),
    ("recovered_by_failover", COUNT),
    ("recovered_by_failover_amount", MONEY),
    ("recovered_by_cascade", COUNT),
    ("recovered_by_cascade_amount", MONEY),
    ("parked", COUNT),
    ("recovered_by_parking", COUNT),
    ("recovered_by_parking_amount", MONEY),
    ("parked_completed", COUNT),
    ("parked_wait_ms", MONEY),
    ("disputes", COUNT),
    ("chargebacks", COUNT),
    ("disputed_amount", MONEY),
    ("chargeback_amount", MONEY),
    *((f"latency_{number:02d}", COUNT) for number in range(26)),
)


def _measures(counts: type[sa.Integer]) -> list[sa.Column[int]]:
    return [
        sa.Column(name, sa.BigInteger() if kind == MONEY else counts(), nullable=False) for name, kind in MEASURES
    ]


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "report_facts",
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("minute", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("decline_class", sa.Text(), nullable=False),
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("country", sa.Text(), nullable=False),
        sa.Column("brand", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        *_measures(sa.SmallInteger),
        sa.PrimaryKeyConstraint("payment_id", "minute", "provider", "decline_class", name=op.f("pk_report_facts")),
    )
    op.create_index("ix_report_facts_minute", "report_facts", ["minute"])
    dimensions = ("merchant", "currency", "provider", "country", "brand", "decline_class")
    op.create_table(
        "report_cells",
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("minute", sa.Integer(), autoincrement=False, nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in dimensions),
        *_measures(sa.BigInteger),
        sa.PrimaryKeyConstraint("level", "minute", *dimensions, name=op.f("pk_report_cells")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "report_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("xact", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("swept_to", sa.Text(), nullable=True),
        sa.Column("kept_from", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_report_state")),
    )
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "report_marks",
        sa.Column("number", number, autoincrement=True, nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_report_marks")),
    )
