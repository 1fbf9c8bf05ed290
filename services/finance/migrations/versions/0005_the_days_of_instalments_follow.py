"""the days of an instalment follow from its entitlement and the calendar

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What follows from other columns and the calendar in force is not stored: it drifted from both."""
    op.drop_column("instalment", "due_on")
    op.drop_column("instalment", "order_on")


def downgrade() -> None:
    """The columns come back with the only day that the tables hold; the due work keeps the days of orders to come."""
    for name in ("due_on", "order_on"):
        op.add_column("instalment", sa.Column(name, sa.Date()))
        op.execute(
            f"UPDATE instalment AS i SET {name} = e.decided_on FROM entitlement AS e WHERE e.id = i.entitlement_id"  # noqa: S608
        )
        op.alter_column("instalment", name, nullable=False)
