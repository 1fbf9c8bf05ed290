"""where employers belong

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

COMMENTS = (
    ("entitlement", "the affiliated treasury", "the affiliated treasury on the day of acceptance"),
    ("payout_order", "the affiliated treasury, which pays", "the one that pays"),
)


def upgrade() -> None:
    """Empty: an employer of whom nothing was told stays where each approval says."""
    op.create_table(
        "employer_affiliation",
        sa.Column("employer", sa.UUID(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False, comment="of an employer the greatest counts"),
        sa.Column(
            "affiliations",
            postgresql.JSONB(),
            nullable=False,
            comment="all of them, as intake told: kind, treasury, days",
        ),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("employer", "revision", name=op.f("pk_employer_affiliation")),
    )
    for table, before, after in COMMENTS:
        op.alter_column(table, "treasury", comment=after, existing_comment=before)


def downgrade() -> None:
    """Every later instalment is borne as approved."""
    for table, before, after in COMMENTS:
        op.alter_column(table, "treasury", comment=before, existing_comment=after)
    op.drop_table("employer_affiliation")
