"""cases may lapse

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BEFORE = "'in_progress', 'closed', 'refused', 'withdrawn'"


def upgrade() -> None:
    """A missed promise ends a case as lapsed."""
    _states(f"{BEFORE}, 'lapsed'")


def downgrade() -> None:
    """Refused where a case has lapsed."""
    _states(BEFORE)


def _states(states: str) -> None:
    op.drop_constraint(op.f("ck_cases_state"), "cases", type_="check")
    op.create_check_constraint(op.f("ck_cases_state"), "cases", f"state IN ({states})")
