"""The tables of housing. Unique keys, not code, keep a flat from being given twice."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from libs.common.db import metadata as make_metadata
from libs.common.idempotency import idempotency_table
from libs.common.migration import APPEND_ONLY
from libs.common.packs import policy_pack_table

metadata = make_metadata()
idempotency_table(metadata)
policy_pack_table(metadata)

flat = Table(
    "flat",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("treasury", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("estate", Text, nullable=False),
    Column("building", Text, nullable=False),
    Column("room", Text, nullable=False),
    Column("area", Integer, nullable=False, comment="in 0.01 square metres"),
    Column("kind", Text, nullable=False),
    Column("decoration", Boolean, nullable=False),
    Column("outside_style", Boolean, nullable=False),
    Column("furnishing", Boolean, nullable=False),
    Column("property_management", Boolean, nullable=False),
    Column("offered", Boolean, nullable=False),
    Column("added_at", DateTime(timezone=True), nullable=False),
    Column("added_by", Text, nullable=False),
    UniqueConstraint("treasury", "code"),
    UniqueConstraint("treasury", "estate", "building", "room"),  # one flat under two codes could be given twice
    CheckConstraint("area > 0", name="area"),
    CheckConstraint("kind IN ('transitional', 'apartment')", name="kind"),
)

eligibility = Table(
    "eligibility",
    metadata,
    Column("id", UUID, primary_key=True, comment="the item of the application that was approved"),
    Column("application", UUID, nullable=False),
    Column("benefit", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("number", Text, nullable=False),
    Column("certification", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("beneficiary", UUID, nullable=False),
    Column("employer", UUID),
    Column("treasury", Text, nullable=False),
    Column("city_treasury", Text, nullable=False),
    Column("accepted_on", Date, nullable=False),
    Column("decided_on", Date, nullable=False),
    Column("policy_city", Text, nullable=False),
    Column("policy_version", Text, nullable=False),
    Column("policy_sha256", Text, nullable=False),
    CheckConstraint("kind IN ('transitional', 'apartment')", name="kind"),
)
Index("ix_eligibility_application", eligibility.c.application)
Index("ix_eligibility_beneficiary", eligibility.c.beneficiary)
Index("ix_eligibility_treasury", eligibility.c.treasury, eligibility.c.id)

hold = Table(
    "hold",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("flat", UUID, ForeignKey("flat.id"), nullable=False),
    Column("eligibility", UUID, ForeignKey("eligibility.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("held_at", DateTime(timezone=True), nullable=False),
    Column("held_until", DateTime(timezone=True), nullable=False),
    Column("held_by", Text, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("state IN ('held', 'leased', 'released', 'ended')", name="state"),
    CheckConstraint("held_at < held_until", name="held_until"),
)
_TAKEN = text("state IN ('held', 'leased')")
Index("uq_hold_flat_taken", hold.c.flat, unique=True, postgresql_where=_TAKEN)
Index("uq_hold_eligibility_taken", hold.c.eligibility, unique=True, postgresql_where=_TAKEN)

hold_history = Table(
    "hold_history",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("hold", UUID, ForeignKey("hold.id"), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("move", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("by", Text, nullable=False),
    info=APPEND_ONLY,
)
Index("ix_hold_history_hold", hold_history.c.hold, hold_history.c.id)

lease = Table(
    "lease",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("hold", UUID, ForeignKey("hold.id"), nullable=False, unique=True),
    Column("from_day", Date, nullable=False),
    Column("to_day", Date, nullable=False),
    Column("signed_at", DateTime(timezone=True), nullable=False),
    Column("signed_by", Text, nullable=False),
    CheckConstraint("from_day <= to_day", name="days"),
    info=APPEND_ONLY,
)
