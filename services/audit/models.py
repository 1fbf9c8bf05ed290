"""The tables of audit. `_app` can only add to the trail; the projection is made anew from it at any time."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import UUID

from libs.common.db import metadata as make_metadata
from libs.common.migration import APPEND_ONLY
from libs.common.packs import policy_pack_table

metadata = make_metadata()
policy_pack_table(metadata)

entry = Table(
    "entry",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", UUID, nullable=False, unique=True),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("key", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("time", Text, nullable=False, comment="as the publisher stated it"),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
    Column("headers", Text, nullable=False, comment="canonical JSON: hashed as it stands"),
    Column("payload", LargeBinary, nullable=False),
    Column("payload_digest", Text, nullable=False),
    Column("previous", Text, nullable=False, unique=True),  # a chain does not fork
    Column("hash", Text, nullable=False),
    CheckConstraint("seq > 0", name="seq"),
    info=APPEND_ONLY,
)
Index("ix_entry_key", entry.c.key, entry.c.seq)
Index("ix_entry_topic", entry.c.topic, entry.c.seq)

clock = Table(
    "clock",
    metadata,
    Column("kind", Text, nullable=False),
    Column("record", UUID, nullable=False, comment="the task or the payout order"),
    Column("application", UUID, nullable=False),
    Column("item", UUID),
    Column("treasury", Text),
    Column("department", Text),
    Column("fen", BigInteger),
    Column("opened_on", Date),
    Column("due_on", Date),
    Column("moved_due_on", Date),
    Column("suspended_from", Date),
    Column("ended_on", Date),
    Column("policy_city", Text, nullable=False),
    Column("policy_version", Text, nullable=False),
    Column("policy_sha256", Text, nullable=False),
    PrimaryKeyConstraint("kind", "record"),
    CheckConstraint("kind IN ('task', 'payout')", name="kind"),
)
Index("ix_clock_application", clock.c.application)

case_clock = Table(
    "case_clock",
    metadata,
    Column("application", UUID, primary_key=True),
    Column("accepted_on", Date),
    Column("closed_on", Date),
)
