"""a treasury's result file has a number of its own

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Other contents under a number that was imported before are refused from now on."""
    op.create_unique_constraint(op.f("uq_bank_result_file_treasury_number"), "bank_result_file", ["treasury", "number"])


def downgrade() -> None:
    """Number alone tells files apart no more."""
    op.drop_constraint(op.f("uq_bank_result_file_treasury_number"), "bank_result_file", type_="unique")
