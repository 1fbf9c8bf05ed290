"""a settlement says what each debtor owed

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

COMMENTS = (
    ("treasury", "the one below the city", "the one that paid and is owed"),
    ("fen", "positive where the city owes it", "positive where it is owed"),
)


def upgrade() -> None:
    """What is there already was owed by the city alone: empty."""
    op.add_column(
        "settlement",
        sa.Column(
            "owed",
            postgresql.JSONB(),
            nullable=False,
            server_default="{}",
            comment="that by debtor; empty before 0009: the city",
        ),
    )
    for column, before, after in COMMENTS:
        op.alter_column("settlement", column, comment=after, existing_comment=before)


def downgrade() -> None:
    """Only the sum."""
    for column, before, after in COMMENTS:
        op.alter_column("settlement", column, comment=before, existing_comment=after)
    op.drop_column("settlement", "owed")
