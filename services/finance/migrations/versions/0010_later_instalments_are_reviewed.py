"""what must still hold is reviewed before a later instalment is ordered

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """No instalment that is there already needs a review: no policy asked for one."""
    op.add_column(
        "instalment",
        sa.Column(
            "review_from",
            sa.Date(),
            nullable=True,
            comment="from when it may be reviewed; null: ordered without a review",
        ),
    )
    op.create_table(
        "instalment_review",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("serial", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("entitlement_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.SmallInteger(), nullable=False, comment="of the instalment; its last review counts"),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("facts", postgresql.JSONB(), nullable=False, comment="what the officer stated"),
        sa.Column("clauses", postgresql.JSONB(), nullable=False, comment="each condition as it was tried and told"),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("verdict IN ('pass', 'undetermined', 'fail')", name=op.f("ck_instalment_review_verdict")),
        sa.ForeignKeyConstraint(
            ["entitlement_id", "number"],
            ["instalment.entitlement_id", "instalment.number"],
            name=op.f("fk_instalment_review_entitlement_id_instalment"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instalment_review")),
        sa.UniqueConstraint("serial", name=op.f("uq_instalment_review_serial")),
    )
    op.create_index("ix_instalment_review_instalment", "instalment_review", ["entitlement_id", "number", "serial"])


def downgrade() -> None:
    """Whatever was withheld would be ordered."""
    op.drop_table("instalment_review")
    op.drop_column("instalment", "review_from")
