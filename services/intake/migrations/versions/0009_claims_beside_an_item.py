"""claims beside an item

Revision ID: 0009
Revises: 0008
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | Sequence[str] | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """What was claimed until now, and what an older process claims, is claimed for itself."""
    op.add_column(
        "claim",
        sa.Column(
            "stands_for",
            sa.Text(),
            nullable=True,
            comment="the item that it is claimed for, where that is another one than the code",
        ),
    )


def downgrade() -> None:
    """Claims beside an item go: an older process would take each for one of its code."""
    op.execute("DELETE FROM claim WHERE stands_for IS NOT NULL")
    op.drop_column("claim", "stands_for")
