"""decisions are kept

Revision ID: 0008
Revises: 0007
Create Date: 2026-11-28 12:50:00.000000
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0008"
down_revision: str | Sequence[str] | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column(
        "application_item",
        sa.Column(
            "decision",
            postgresql.JSONB(),
            nullable=True,
            comment="what the policy said of the item when it was last examined, clause by clause",
        ),
    )


def downgrade() -> None:
    op.drop_column("application_item", "decision")
