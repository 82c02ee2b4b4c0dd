"""Decisions that checkout asked for, the outcomes it told of them, and the secret that their ids are signed with.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "decisions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("card_brand", sa.Text(), nullable=True),
        sa.Column("card_country", sa.Text(), nullable=True),
        sa.Column("card_funding", sa.Text(), nullable=True),
        sa.Column("decision", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
    )
    op.create_index("ix_decisions_created_at", "decisions", ["created_at"])
    op.create_table(
        "decision_outcomes",
        sa.Column("decision_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("latency_ms", sa.Integer(), nullable=False),
        sa.Column("decline_code", sa.Text(), nullable=True),
        sa.Column("decline", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("finishes", sa.Boolean(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.Column("told_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", "provider", name=op.f("pk_decision_outcomes")),
    )
    op.create_index(
        "uq_decision_outcomes_finishes",
        "decision_outcomes",
        ["decision_id"],
        unique=True,
        sqlite_where=sa.text("finishes"),
        postgresql_where=sa.text("finishes"),
    )
    op.create_index("ix_decision_outcomes_decided_at", "decision_outcomes", ["decided_at"])
    op.create_table(
        "secrets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secrets")),
    )
