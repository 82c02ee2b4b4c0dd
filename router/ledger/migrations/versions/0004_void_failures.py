"""A void by our own id keeps which of its sends came to nothing: it is over when all have.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Apply."""
    failures = sa.Column("failures", sa.JSON(none_as_null=True), server_default="[]", nullable=False)
    op.add_column("operations", failures)
