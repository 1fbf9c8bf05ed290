"""where an employer was seen

Revision ID: 0012
Revises: 0011
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | Sequence[str] | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Null of what is in correction now: it is judged by who completes it, as it was."""
    op.add_column(
        "application",
        sa.Column(
            "employer_seen_at",
            sa.Text(),
            nullable=True,
            comment="the treasury at whose window what is stated of the employer was seen",
        ),
    )


def downgrade() -> None:
    """Nothing is lost but that who completes a filing that was made at a window sends it there again."""
    op.drop_column("application", "employer_seen_at")
