"""events are written once

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-27 22:20:00.000000
"""

from collections.abc import Sequence

from libs.common.migration import events_written_once, events_written_twice

revision: str = "0004"
down_revision: str | Sequence[str] | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    events_written_once()


def downgrade() -> None:
    events_written_twice()
