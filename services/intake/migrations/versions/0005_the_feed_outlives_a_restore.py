"""the feed outlives a restore

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

EPOCH = "('x' || \"left\"(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer"


def upgrade() -> None:
    """Where a step stands in the feed begins with the cluster's epoch; whatever stands there is of the first."""
    op.add_column("timeline", sa.Column("epoch", sa.Integer(), nullable=False, server_default="1"))
    op.alter_column("timeline", "epoch", server_default=sa.text(EPOCH))


def downgrade() -> None:
    """Without epochs."""
    op.drop_column("timeline", "epoch")
