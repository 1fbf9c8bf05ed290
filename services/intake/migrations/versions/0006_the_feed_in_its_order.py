"""the feed in its order

Revision ID: 0006
Revises: 0005
"""

from alembic import op

from libs.common.migration import create_index_online

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """An index of the feed's order with its epochs, instead of the one without."""
    create_index_online("ix_timeline_place", "timeline", ["epoch", "xid", "seq"])
    op.drop_index("ix_timeline_xid", table_name="timeline", if_exists=True)


def downgrade() -> None:
    """The order without epochs."""
    op.create_index("ix_timeline_xid", "timeline", ["xid", "seq"])
    op.drop_index("ix_timeline_place", table_name="timeline")
