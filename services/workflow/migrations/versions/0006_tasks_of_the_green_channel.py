"""tasks of the green channel

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """No task that is there already was given through the green channel: no policy had one."""
    op.add_column(
        "task",
        sa.Column(
            "green_channel",
            sa.Boolean(),
            server_default="false",
            nullable=False,
            comment="worked ahead of the rest (第六条); the limit is already the shorter one",
        ),
    )


def downgrade() -> None:
    """Limits that were shortened stay so."""
    op.drop_column("task", "green_channel")
