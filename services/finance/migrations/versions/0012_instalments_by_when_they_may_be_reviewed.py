"""instalments by when they may be reviewed

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

from libs.common.migration import create_index_online

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The order of the list of pending reviews; of the instalments that need one only."""
    columns = ["review_from", "entitlement_id", "number"]
    create_index_online("ix_instalment_review_from", "instalment", columns, where=sa.text("review_from IS NOT NULL"))


def downgrade() -> None:
    """The list looks through every instalment."""
    op.drop_index("ix_instalment_review_from", table_name="instalment")
