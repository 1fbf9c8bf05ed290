"""directories of employers

Revision ID: 0010
Revises: 0009
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | Sequence[str] | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Empty: an older process works under policies that have no directory."""
    op.create_table(
        "directory_entry",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("city", sa.Text(), nullable=False),
        sa.Column("directory", sa.Text(), nullable=False, comment="its code in the policy"),
        sa.Column("credit_code", sa.Text(), nullable=False, comment="of an employer that need not be on record"),
        sa.Column("name", sa.Text(), nullable=False, comment="as the document has it that entered the employer"),
        sa.Column(
            "listed",
            sa.Boolean(),
            nullable=False,
            comment="entered, else struck; on a day the newest that covers it counts",
        ),
        sa.Column("valid_from", sa.Date(), nullable=False),
        sa.Column("valid_to", sa.Date(), nullable=True),
        sa.Column(
            "document",
            sa.Text(),
            nullable=False,
            comment="number of the document that enters or strikes the employer",
        ),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("valid_to >= valid_from", name=op.f("ck_directory_entry_ends_after_it_begins")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_directory_entry")),
    )
    op.create_index(
        "ix_directory_entry_newest", "directory_entry", ["city", "directory", "credit_code", "id"], unique=False
    )


def downgrade() -> None:
    """What was entered is lost, and with it who stood in which directory when."""
    op.drop_table("directory_entry")
