"""public notices

Revision ID: 0011
Revises: 0010
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | Sequence[str] | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """A projection: empty, and filled by what workflow tells of."""
    op.create_table(
        "public_notice",
        sa.Column("notice", sa.UUID(), nullable=False),
        sa.Column("application", sa.UUID(), nullable=False),
        sa.Column("item", sa.UUID(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("treasury", sa.Text(), nullable=False),
        sa.Column("opened_on", sa.Date(), nullable=False),
        sa.Column("last_day", sa.Date(), nullable=False),
        sa.Column("over_on", sa.Date(), nullable=True, comment="the day after the last, once it has come"),
        sa.Column("withdrawn_on", sa.Date(), nullable=True),
        sa.PrimaryKeyConstraint("notice", name=op.f("pk_public_notice")),
    )
    op.create_index(op.f("ix_public_notice_application"), "public_notice", ["application"], unique=False)
    op.create_index(op.f("ix_public_notice_last_day"), "public_notice", ["last_day"], unique=False)
    op.create_table(
        "objection",
        sa.Column("objection", sa.UUID(), nullable=False),
        sa.Column("notice", sa.UUID(), nullable=False),
        sa.Column("application", sa.UUID(), nullable=False),
        sa.Column("received_on", sa.Date(), nullable=False),
        sa.Column("upheld", sa.Boolean(), nullable=True),
        sa.Column("concluded_on", sa.Date(), nullable=True),
        sa.PrimaryKeyConstraint("objection", name=op.f("pk_objection")),
    )
    op.create_index(op.f("ix_objection_application"), "objection", ["application"], unique=False)
    op.create_index(op.f("ix_objection_notice"), "objection", ["notice"], unique=False)


def downgrade() -> None:
    """Made anew from the log where it is needed."""
    op.drop_table("objection")
    op.drop_table("public_notice")
