"""payments may be cancelled

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The day on which finance cancelled an order."""
    op.add_column("payment", sa.Column("cancelled_on", sa.Date(), nullable=True))


def downgrade() -> None:
    """Without it: a projection, made anew from the log."""
    op.drop_column("payment", "cancelled_on")
