"""green tasks are found without those between them

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Of the green tasks of an org unit, which are few, in the order in which they are listed."""
    op.create_index(
        "ix_task_green", "task", ["treasury", "department", "id"], postgresql_where=sa.text("green_channel")
    )


def downgrade() -> None:
    """They are looked for among all of the unit again."""
    op.drop_index("ix_task_green", table_name="task", postgresql_where=sa.text("green_channel"))
