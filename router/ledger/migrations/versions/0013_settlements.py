"""The providers' settlement files, line by line, and what each line is judged as.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "settlement_imports",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("lines", sa.BigInteger(), nullable=False),
        sa.Column("new_lines", sa.BigInteger(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=True),
        sa.Column("last_at", sa.BigInteger(), nullable=True),
        sa.Column("imported_by", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_settlement_imports")),
        sa.UniqueConstraint(
            "provider", "account", "digest", name=op.f("uq_settlement_imports_provider_account_digest")
        ),
    )
    op.create_index(
        "uq_settlement_imports_open",
        "settlement_imports",
        ["provider"],
        unique=True,
        sqlite_where=sa.text("state <> 'done'"),
        postgresql_where=sa.text("state <> 'done'"),
    )
    op.create_table(
        "settlement_lines",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("import_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("modification", sa.Text(), nullable=True),
        sa.Column("own", sa.Text(), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("fee", sa.BigInteger(), nullable=False),
        sa.Column("net", sa.BigInteger(), nullable=False),
        sa.Column("net_currency", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("batch", sa.Text(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("unit", sa.Text(), nullable=True),
        sa.Column("payment_id", sa.Text(), nullable=True),
        sa.Column("attempt_id", sa.Text(), nullable=True),
        sa.Column("operation_id", sa.Text(), nullable=True),
        sa.Column("settled", sa.BigInteger(), nullable=True),
        sa.Column("expected", sa.BigInteger(), nullable=True),
        sa.Column("expected_currency", sa.Text(), nullable=True),
        sa.Column("expected_fee", sa.BigInteger(), nullable=True),
        sa.Column("expected_fee_currency", sa.Text(), nullable=True),
        sa.Column("fee_basis", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["import_id"], ["settlement_imports.id"], name=op.f("fk_settlement_lines_import_id")),
        sa.PrimaryKeyConstraint("provider", "id", name=op.f("pk_settlement_lines")),
    )
    op.create_index("ix_settlement_lines_import", "settlement_lines", ["import_id", "verdict", "number"])
    op.create_index("ix_settlement_lines_unit", "settlement_lines", ["provider", "kind", "unit"])
    op.create_index("ix_settlement_lines_attempt", "settlement_lines", ["attempt_id", "kind"])
    op.create_index("ix_settlement_lines_operation", "settlement_lines", ["operation_id"])
    op.create_index(
        "ix_attempts_approved",
        "attempts",
        ["provider", "started_at"],
        sqlite_where=sa.text("outcome = 'approved'"),
        postgresql_where=sa.text("outcome = 'approved'"),
    )
    op.create_index("ix_operations_provider_reference", "operations", ["provider", "provider_reference"])
    op.create_index("ix_operations_started_at", "operations", ["provider", "started_at"])
