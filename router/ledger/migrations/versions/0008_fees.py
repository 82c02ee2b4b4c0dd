"""An attempt keeps what its provider says that it charges.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Apply."""
    op.add_column("attempts", sa.Column("fee_actual", sa.BigInteger(), nullable=True))
    op.add_column("attempts", sa.Column("fee_currency", sa.Text(), nullable=True))
