"""The tables of workflow. Invariants stand here as keys and checks; what is history can only be added to."""

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
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from libs.common.db import metadata as make_metadata
from libs.common.idempotency import idempotency_table
from libs.common.migration import APPEND_ONLY
from libs.common.packs import policy_pack_table

metadata = make_metadata()
idempotency_table(metadata)
policy_pack_table(metadata)

MOMENT = DateTime(timezone=True)

cases = Table(
    "cases",
    metadata,
    Column("application", UUID, primary_key=True),
    Column("case_no", Text, nullable=False, unique=True),
    Column("city", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("treasury", Text, nullable=False),
    Column("accepted_on", Date, nullable=False),
    Column("beneficiary", UUID, nullable=False),
    Column("applicant", UUID),
    Column("handler", UUID),
    Column("employer", UUID),
    Column("employer_kind", Text),
    Column("payee_account", UUID),
    Column("state", Text, nullable=False),
    Column("opened_at", MOMENT, nullable=False),
    Column("closed_on", Date),
    CheckConstraint("state IN ('in_progress', 'closed', 'refused', 'withdrawn', 'lapsed')", name="state"),
    CheckConstraint("(state = 'in_progress') = (closed_on IS NULL)", name="closed_on"),
)
Index("ix_cases_treasury_state", cases.c.treasury, cases.c.state, cases.c.application)
Index("ix_cases_beneficiary", cases.c.beneficiary)

item = Table(
    "item",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("application", UUID, ForeignKey("cases.application"), nullable=False),
    Column("position", SmallInteger, nullable=False),
    Column("code", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("category", Text, comment="as claimed"),
    Column("benefit", Text),
    Column("certification", Text, comment="number of the earlier certification it relies on"),
    Column("state", Text, nullable=False),
    Column("stage", SmallInteger, nullable=False, comment="from 0; -1 where there is none"),
    Column("version", Integer, nullable=False, server_default="1", comment="its ETag"),
    Column("verdict", Text),
    Column("verdict_category", Text),
    Column("verdict_reason", Text),
    Column("proposed_by", Text),
    Column("proposed_at", MOMENT),
    Column("confirmed_by", Text),
    Column("decided_on", Date),
    Column("reason", Text, comment="why it was refused, in the words that the applicant reads"),
    CheckConstraint(
        "state IN ('in_progress', 'awaiting_decision', 'proposed', 'done', 'refused', 'withdrawn')", name="state"
    ),
    CheckConstraint("kind IN ('certification', 'benefit', 'service', 'change')", name="kind"),
    CheckConstraint("verdict IN ('certify', 'approve', 'refuse')", name="verdict"),
    CheckConstraint("confirmed_by <> proposed_by", name="four_eyes"),
    CheckConstraint("state <> 'refused' OR reason IS NOT NULL", name="refused_with_reason"),
    CheckConstraint("(kind = 'benefit') = (benefit IS NOT NULL)", name="benefit"),
)
Index("ix_item_application", item.c.application)
Index(
    "ix_item_to_decide",
    item.c.id,
    postgresql_where=item.c.state.in_(["awaiting_decision", "proposed"]),
)

task = Table(
    "task",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("application", UUID, ForeignKey("cases.application"), nullable=False),
    Column("item", UUID, ForeignKey("item.id"), nullable=False),
    Column("stage", SmallInteger, nullable=False),
    Column("treasury", Text, nullable=False),
    Column("department", Text, nullable=False),
    Column("feed_no", BigInteger, nullable=False, comment="running number within treasury and department"),
    Column("title", Text, nullable=False),
    Column("limit_working_days", Integer, nullable=False),
    Column(
        "green_channel",
        Boolean,
        nullable=False,
        server_default="false",
        comment="worked ahead of the rest (第六条); the limit is already the shorter one",
    ),
    Column("start_on", Date, nullable=False, comment="the day of the event, which does not count"),
    Column("assigned_at", MOMENT, nullable=False),
    Column("state", Text, nullable=False),
    Column("result", Text),
    Column("reason", Text),
    Column("facts", JSONB),
    Column("completed_on", Date),
    Column("completed_by", Text),
    CheckConstraint("state IN ('open', 'suspended', 'completed', 'cancelled')", name="state"),
    CheckConstraint("(state = 'completed') = (result IS NOT NULL)", name="completed_with_result"),
    CheckConstraint("result IN ('passed', 'failed')", name="result"),
    CheckConstraint("result <> 'failed' OR reason IS NOT NULL", name="failed_with_reason"),
    UniqueConstraint("item", "department"),
    UniqueConstraint("treasury", "department", "feed_no"),
)
Index("ix_task_application", task.c.application)
Index("ix_task_org_unit", task.c.treasury, task.c.department, task.c.state, task.c.id)
Index("ix_task_green", task.c.treasury, task.c.department, task.c.id, postgresql_where=task.c.green_channel)

# The row is locked until the commit that hands out its numbers, so within one org unit numbers become visible in order
# and a reader that has seen number n misses none below it.
Table(
    "task_feed",
    metadata,
    Column("treasury", Text, nullable=False),
    Column("department", Text, nullable=False),
    Column("last", BigInteger, nullable=False),
    PrimaryKeyConstraint("treasury", "department"),
)

suspension = Table(
    "suspension",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("task", UUID, ForeignKey("task.id"), nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("from_day", Date, nullable=False, comment="the first day without the clock"),
    Column("recorded_by", Text, nullable=False),
    Column("recorded_at", MOMENT, nullable=False),
    info=APPEND_ONLY,
)
resumption = Table(
    "resumption",
    metadata,
    Column("suspension", UUID, ForeignKey("suspension.id"), primary_key=True),
    Column("to_day", Date, nullable=False, comment="the day from which the clock runs again"),
    Column("recorded_by", Text, nullable=False),
    Column("recorded_at", MOMENT, nullable=False),
    info=APPEND_ONLY,
)
Table(
    "breach",
    metadata,
    Column("task", UUID, ForeignKey("task.id"), primary_key=True, comment="announced once"),
    Column("due_on", Date, nullable=False),
    Column("announced_at", MOMENT, nullable=False),
    info=APPEND_ONLY,
)

# A notice belongs to the proposal that it publishes: sent back, that one is gone, and a new one has its own notice.
public_notice = Table(
    "public_notice",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("application", UUID, ForeignKey("cases.application"), nullable=False),
    Column("item", UUID, ForeignKey("item.id"), nullable=False),
    Column("proposed_at", MOMENT, nullable=False, comment="of the proposal"),
    Column("proposed_by", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("opened_on", Date, nullable=False, comment="the day of the event, which does not count"),
    Column("last_day", Date, nullable=False, comment="as it was published"),
    Column("opened_by", Text, nullable=False),
    Column("opened_at", MOMENT, nullable=False),
    UniqueConstraint("item", "proposed_at"),
    CheckConstraint("last_day > opened_on", name="counted_days"),
    info=APPEND_ONLY,
)
objection = Table(
    "objection",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("notice", UUID, ForeignKey("public_notice.id"), nullable=False, index=True),
    Column("received_on", Date, nullable=False),
    Column("matter", Text, nullable=False, comment="what was said, for officers only"),
    Column("recorded_by", Text, nullable=False),
    Column("recorded_at", MOMENT, nullable=False),
    info=APPEND_ONLY,
)
objection_finding = Table(
    "objection_finding",
    metadata,
    Column("objection", UUID, ForeignKey("objection.id"), primary_key=True),
    Column("upheld", Boolean, nullable=False),
    Column("finding", Text, nullable=False, comment="in the words that the applicant reads"),
    Column("concluded_on", Date, nullable=False),
    Column("recorded_by", Text, nullable=False),
    Column("recorded_at", MOMENT, nullable=False),
    info=APPEND_ONLY,
)

history = Table(
    "history",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("application", UUID, ForeignKey("cases.application"), nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("action", Text, nullable=False),
    Column("by", Text, comment="the subject who acted; absent where the system followed a rule"),
    Column("item", UUID),
    Column("task", UUID),
    Column("detail", JSONB, nullable=False),
    info=APPEND_ONLY,
)
Index("ix_history_application", history.c.application, history.c.id)

Table(
    "number_sequence",
    metadata,
    Column("prefix", Text, nullable=False),
    Column("treasury", Text, nullable=False),
    Column("year", SmallInteger, nullable=False),
    Column("last", Integer, nullable=False),
    PrimaryKeyConstraint("prefix", "treasury", "year"),
)
certification = Table(
    "certification",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("number", Text, nullable=False, unique=True),
    Column("application", UUID, ForeignKey("cases.application"), nullable=False, index=True),
    Column("item", UUID, ForeignKey("item.id"), nullable=False, unique=True),
    Column("beneficiary", UUID, nullable=False, index=True),
    Column("category", Text, nullable=False),
    Column("treasury", Text, nullable=False),
    Column("decided_on", Date, nullable=False),
    Column("valid_to", Date, nullable=False, comment="the last day on which it holds"),
    Column("proposed_by", Text, nullable=False),
    Column("confirmed_by", Text, nullable=False),
    CheckConstraint("confirmed_by <> proposed_by", name="four_eyes"),
    info=APPEND_ONLY,
)
approval = Table(
    "approval",
    metadata,
    Column("item", UUID, ForeignKey("item.id"), primary_key=True),
    Column("number", Text, nullable=False, unique=True),
    Column("application", UUID, ForeignKey("cases.application"), nullable=False),
    Column("benefit", Text, nullable=False),
    Column("beneficiary", UUID, nullable=False),
    Column("certification", Text, ForeignKey("certification.number"), nullable=False),
    Column("category", Text, nullable=False),
    Column("decided_on", Date, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("confirmed_by", Text, nullable=False),
    CheckConstraint("confirmed_by <> proposed_by", name="four_eyes"),
    info=APPEND_ONLY,
)
# Taken before a number is drawn, so that the loser of a race draws none.
Table(
    "claim",
    metadata,
    Column("benefit", Text, nullable=False),
    Column("beneficiary", UUID, nullable=False),
    Column("item", UUID, ForeignKey("item.id"), nullable=False, unique=True),
    PrimaryKeyConstraint("benefit", "beneficiary"),
    info=APPEND_ONLY,
)

talent_record = Table(
    "talent_record",
    metadata,
    Column("person", UUID, primary_key=True),
    Column("opened_at", MOMENT, nullable=False),
    info=APPEND_ONLY,
)
record_entry = Table(
    "record_entry",
    metadata,
    Column("item", UUID, ForeignKey("item.id"), primary_key=True),
    Column("person", UUID, ForeignKey("talent_record.person"), nullable=False, index=True),
    Column("application", UUID, ForeignKey("cases.application"), nullable=False),
    Column("code", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("reason", Text),
    Column("closed_on", Date, nullable=False),
    CheckConstraint("result IN ('done', 'refused', 'withdrawn')", name="result"),
    info=APPEND_ONLY,
)
