"""public notices

Revision ID: 0005
Revises: 0004
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | Sequence[str] | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Empty. An older process opens no notice and confirms without one: start none where a policy requires notices."""
    op.create_table(
        "public_notice",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("application", sa.UUID(), nullable=False),
        sa.Column("item", sa.UUID(), nullable=False),
        sa.Column("proposed_at", MOMENT, nullable=False, comment="of the proposal"),
        sa.Column("proposed_by", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("opened_on", sa.Date(), nullable=False, comment="the day of the event, which does not count"),
        sa.Column("last_day", sa.Date(), nullable=False, comment="as it was published"),
        sa.Column("opened_by", sa.Text(), nullable=False),
        sa.Column("opened_at", MOMENT, nullable=False),
        sa.CheckConstraint("last_day > opened_on", name=op.f("ck_public_notice_counted_days")),
        sa.ForeignKeyConstraint(
            ["application"], ["cases.application"], name=op.f("fk_public_notice_application_cases")
        ),
        sa.ForeignKeyConstraint(["item"], ["item.id"], name=op.f("fk_public_notice_item_item")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_public_notice")),
        sa.UniqueConstraint("item", "proposed_at", name=op.f("uq_public_notice_item_proposed_at")),
    )
    op.create_table(
        "objection",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("notice", sa.UUID(), nullable=False),
        sa.Column("received_on", sa.Date(), nullable=False),
        sa.Column("matter", sa.Text(), nullable=False, comment="what was said, for officers only"),
        sa.Column("recorded_by", sa.Text(), nullable=False),
        sa.Column("recorded_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["notice"], ["public_notice.id"], name=op.f("fk_objection_notice_public_notice")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_objection")),
    )
    op.create_index(op.f("ix_objection_notice"), "objection", ["notice"], unique=False)
    op.create_table(
        "objection_finding",
        sa.Column("objection", sa.UUID(), nullable=False),
        sa.Column("upheld", sa.Boolean(), nullable=False),
        sa.Column("finding", sa.Text(), nullable=False, comment="in the words that the applicant reads"),
        sa.Column("concluded_on", sa.Date(), nullable=False),
        sa.Column("recorded_by", sa.Text(), nullable=False),
        sa.Column("recorded_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["objection"], ["objection.id"], name=op.f("fk_objection_finding_objection_objection")),
        sa.PrimaryKeyConstraint("objection", name=op.f("pk_objection_finding")),
    )


def downgrade() -> None:
    """What was published and objected is lost; cases and decisions stay."""
    op.drop_table("objection_finding")
    op.drop_table("objection")
    op.drop_table("public_notice")
