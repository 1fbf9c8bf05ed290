"""changes of account, and the account in the history of orders

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

RECORD = "the batch, the result file, or the application of a change of account"


def upgrade() -> None:
    """A change of account is kept for good, beside what the approval said."""
    op.create_table(
        "beneficiary",
        sa.Column("id", sa.UUID(), nullable=False, comment="locked before an order of theirs is given its account"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_beneficiary")),
    )
    op.create_table(
        "payee_change",
        sa.Column("application", sa.UUID(), nullable=False, comment="the application that changed the account"),
        sa.Column("item", sa.UUID(), nullable=False),
        sa.Column("beneficiary", sa.UUID(), nullable=False),
        sa.Column("payee_account", sa.UUID(), nullable=False),
        sa.Column("accepted_on", sa.Date(), nullable=False),
        sa.Column("decided_on", sa.Date(), nullable=False),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["beneficiary"], ["beneficiary.id"], name=op.f("fk_payee_change_beneficiary_beneficiary")
        ),
        sa.PrimaryKeyConstraint("application", name=op.f("pk_payee_change")),
    )
    op.create_index("ix_payee_change_beneficiary", "payee_change", ["beneficiary", "accepted_on", "application"])
    op.add_column(
        "order_history",
        sa.Column("payee_account", sa.UUID(), comment="where the order goes from this step on, where the step says so"),
    )
    op.alter_column("order_history", "record", comment=RECORD, existing_comment="the batch or result file")


def downgrade() -> None:
    """Changes of account are forgotten; orders stay where they go."""
    op.alter_column("order_history", "record", comment="the batch or result file", existing_comment=RECORD)
    op.drop_column("order_history", "payee_account")
    op.drop_index("ix_payee_change_beneficiary", table_name="payee_change")
    op.drop_table("payee_change")
    op.drop_table("beneficiary")
