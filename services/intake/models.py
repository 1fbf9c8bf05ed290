"""Intake's tables. What is personal is sealed (`sealed`) and found by a keyed hash (`…_index`), never in clear."""

from sqlalchemy import (
    ARRAY,
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
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from libs.common.db import metadata as make_metadata
from libs.common.idempotency import idempotency_table
from libs.common.migration import APPEND_ONLY
from libs.common.packs import policy_pack_table

metadata = make_metadata()
idempotency_table(metadata)
policy_pack_table(metadata)


def _recorded_at() -> Column[object]:
    return Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())


# -- people

person = Table(
    "person",
    metadata,
    Column("ref", UUID, primary_key=True),
    Column("sealed", LargeBinary, nullable=False, comment="birth date, telephone"),
    Column("merged_into", UUID, ForeignKey("person.ref")),
    _recorded_at(),
    CheckConstraint("merged_into <> ref", name="merged_into_another"),
)
Index("ix_person_merged_into", person.c.merged_into, postgresql_where=person.c.merged_into.is_not(None))

person_document = Table(
    "person_document",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("person", UUID, ForeignKey("person.ref"), nullable=False, index=True),
    Column("type", Text, nullable=False),
    Column("number_index", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False, comment="the number"),
    Column("valid_from", Date),
    Column("valid_to", Date),
    Column(
        "claimed", Boolean, nullable=False, comment="stated beside another one, seen by nobody: it identifies nobody"
    ),
    _recorded_at(),
    UniqueConstraint("number_index", "type"),
)

person_name = Table(
    "person_name",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("person", UUID, ForeignKey("person.ref"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("name_index", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    _recorded_at(),
    UniqueConstraint("person", "kind", "name_index"),
    CheckConstraint("kind IN ('legal', 'latin', 'former')", name="kind"),
    info=APPEND_ONLY,  # the newest legal name counts; the older ones stay
)

person_link = Table(
    "person_link",
    metadata,
    Column("person", UUID, ForeignKey("person.ref"), nullable=False),
    Column("relation", Text, nullable=False),
    Column("other", UUID, ForeignKey("person.ref"), nullable=False),
    _recorded_at(),
    PrimaryKeyConstraint("person", "relation", "other"),
    CheckConstraint("relation IN ('spouse', 'child')", name="relation"),
    info=APPEND_ONLY,
)

payee_account = Table(
    "payee_account",
    metadata,
    Column("ref", UUID, primary_key=True),
    Column("person", UUID, ForeignKey("person.ref"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("account_index", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False, comment="holder, bank, branch number, account number"),
    _recorded_at(),
    UniqueConstraint("person", "version"),
    info=APPEND_ONLY,
)

person_merge = Table(
    "person_merge",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("merged", UUID, ForeignKey("person.ref"), nullable=False),
    Column("into", UUID, ForeignKey("person.ref"), nullable=False),
    Column("by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    _recorded_at(),
    info=APPEND_ONLY,
)

people_resolved = Table(
    "people_resolved",
    metadata,
    Column("call", UUID, primary_key=True),
    Column("caller", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("fields", ARRAY(Text), nullable=False),
    Column("refs", ARRAY(UUID), nullable=False),
    _recorded_at(),
    info=APPEND_ONLY,
)

# -- employers

employer = Table(
    "employer",
    metadata,
    Column("ref", UUID, primary_key=True),
    Column("credit_code", Text, nullable=False, unique=True),
    _recorded_at(),
    info=APPEND_ONLY,
)

employer_version = Table(
    "employer_version",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("employer", UUID, ForeignKey("employer.ref"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("valid_from", Date, nullable=False, comment="the day it was first filed like this; it ends with the next"),
    _recorded_at(),
    info=APPEND_ONLY,
)

employer_affiliation = Table(
    "employer_affiliation",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("employer", UUID, ForeignKey("employer.ref"), nullable=False),
    Column("statement", UUID, nullable=False, comment="what was stated together; the newest statement counts"),
    Column("kind", Text, nullable=False),
    Column("treasury", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("valid_from", Date, nullable=False),
    Column("valid_to", Date),
    _recorded_at(),
    CheckConstraint("valid_to >= valid_from", name="ends_after_it_begins"),
    info=APPEND_ONLY,
)
Index("ix_employer_affiliation_newest", employer_affiliation.c.employer, employer_affiliation.c.id)

directory_entry = Table(
    "directory_entry",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("city", Text, nullable=False),
    Column("directory", Text, nullable=False, comment="its code in the policy"),
    Column("credit_code", Text, nullable=False, comment="of an employer that need not be on record"),
    Column("name", Text, nullable=False, comment="as the document has it that entered the employer"),
    Column(
        "listed", Boolean, nullable=False, comment="entered, else struck; on a day the newest that covers it counts"
    ),
    Column("valid_from", Date, nullable=False),
    Column("valid_to", Date),
    Column("document", Text, nullable=False, comment="number of the document that enters or strikes the employer"),
    Column("by", Text, nullable=False),
    _recorded_at(),
    CheckConstraint("valid_to >= valid_from", name="ends_after_it_begins"),
    info=APPEND_ONLY,
)
Index(
    "ix_directory_entry_newest",
    directory_entry.c.city,
    directory_entry.c.directory,
    directory_entry.c.credit_code,
    directory_entry.c.id,
)

# -- applications

case_counter = Table(
    "case_counter",
    metadata,
    Column("platform", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("last", Integer, nullable=False),
    PrimaryKeyConstraint("platform", "day"),
)

application = Table(
    "application",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("case_no", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("platform", Text, nullable=False),
    Column("treasury", Text, comment="the affiliated one, once it is known"),
    Column("client", Text, nullable=False, comment="the system that filed it"),
    Column("filed_by", Text, nullable=False),
    Column("applicant", UUID, ForeignKey("person.ref"), comment="null where the employer applies"),
    Column("beneficiary", UUID, ForeignKey("person.ref"), nullable=False),
    Column("handler", UUID, ForeignKey("person.ref")),
    Column("employer", UUID, ForeignKey("employer.ref")),
    Column("employer_kind", Text),
    Column("payee_account", UUID, ForeignKey("payee_account.ref")),
    Column("sealed", LargeBinary, nullable=False, comment="the filing as it stands: corrections are made on it"),
    Column("defects", JSONB, nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("accepted_on", Date),
    Column("decided_on", Date, comment="not accepted, lapsed or withdrawn before acceptance"),
    Column("answer_by", Date, comment="last day to answer the correction"),
    Column("reason", Text),
    Column("successor", UUID, ForeignKey("application.id", deferrable=True, initially="DEFERRED")),
    Column("predecessor", UUID, ForeignKey("application.id")),
    Column("withdrawal_asked_at", DateTime(timezone=True)),
    Column("policy_city", Text, nullable=False),
    Column("policy_version", Text, nullable=False),
    Column("policy_sha256", Text, nullable=False),
    CheckConstraint(
        "state IN ('correction', 'accepted', 'not_accepted', 'transferred', 'withdrawn', 'lapsed')", name="state"
    ),
    CheckConstraint("(state = 'accepted') = (accepted_on IS NOT NULL)", name="accepted_on_a_day"),
    CheckConstraint("state <> 'accepted' OR treasury IS NOT NULL", name="accepted_by_a_treasury"),
    CheckConstraint("(state = 'transferred') = (successor IS NOT NULL)", name="transferred_to_a_successor"),
    CheckConstraint("state <> 'correction' OR answer_by IS NOT NULL", name="correction_has_an_end"),
    CheckConstraint("(state IN ('not_accepted', 'lapsed')) = (reason IS NOT NULL)", name="refused_for_a_reason"),
)
Index("ix_application_client", application.c.client, application.c.id)
Index("ix_application_platform", application.c.platform, application.c.id)
Index("ix_application_treasury", application.c.treasury, application.c.id)
Index("ix_application_beneficiary", application.c.beneficiary)
Index("ix_application_applicant", application.c.applicant)
Index("ix_application_handler", application.c.handler)

application_item = Table(
    "application_item",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("application", UUID, ForeignKey("application.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("code", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("category", Text),
    Column("certification", Text, comment="number of an earlier certification it relies on"),
    Column("decision", JSONB, comment="what the policy said of the item when it was last examined, clause by clause"),
    UniqueConstraint("application", "code"),
)

claim = Table(
    "claim",
    metadata,
    Column("person", UUID, ForeignKey("person.ref"), nullable=False),
    Column("code", Text, nullable=False),
    Column(
        "application",
        UUID,
        ForeignKey("application.id", deferrable=True, initially="DEFERRED"),
        nullable=False,
        index=True,
    ),
    Column("stands_for", Text, comment="the item that it is claimed for, where that is another one than the code"),
    PrimaryKeyConstraint("person", "code"),
    comment="who asks for, or has, which certification or benefit: once at a time",
)

external_ref = Table(
    "external_ref",
    metadata,
    Column("system", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("application", UUID, ForeignKey("application.id"), nullable=False, index=True),
    Column(
        "superseded_by", UUID, ForeignKey("application.id"), comment="filed under it after this one came to nothing"
    ),
    PrimaryKeyConstraint("system", "kind", "value", "application"),
)
Index(
    "uq_external_ref_holder",
    external_ref.c.system,
    external_ref.c.kind,
    external_ref.c.value,
    unique=True,
    postgresql_where=external_ref.c.superseded_by.is_(None),
)

material_content = Table(
    "material_content",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("media_type", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("sha256", LargeBinary, nullable=False, comment="of the bytes as they came"),
    Column("sealed", LargeBinary, nullable=False),
    _recorded_at(),
    info=APPEND_ONLY,
)

material = Table(
    "material",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("application", UUID, ForeignKey("application.id"), nullable=False, index=True),
    Column("code", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("reference", Text, comment="number of an electronic licence"),
    Column("promised_by", Date),
    Column("content", UUID, ForeignKey("material_content.id")),
    _recorded_at(),
    CheckConstraint("evidence IN ('electronic_licence', 'promised', 'upload')", name="evidence"),
    CheckConstraint("content IS NULL OR evidence = 'upload'", name="only_uploads_have_content"),
)

# -- what applicants are told

# The WAL timeline of the cluster, a number that grows with every restore and every failover.
EPOCH = "('x' || \"left\"(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer"

timeline = Table(
    "timeline",
    metadata,
    Column("seq", BigInteger, Identity(always=True), primary_key=True),
    # A row whose transaction commits late has a smaller number than one already read: see inquiry.changes.
    Column("epoch", Integer, nullable=False, server_default=text(EPOCH)),
    Column("xid", BigInteger, nullable=False, server_default=text("pg_current_xact_id()::text::bigint")),
    Column("application", UUID, ForeignKey("application.id"), nullable=False),
    Column("event_id", UUID, nullable=False, unique=True),
    Column("code", Text, nullable=False),
    Column("item", UUID),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("title", Text, nullable=False),
    Column("detail", Text, nullable=False),
    info=APPEND_ONLY,
)
Index("ix_timeline_application", timeline.c.application, timeline.c.seq)
Index("ix_timeline_place", timeline.c.epoch, timeline.c.xid, timeline.c.seq)

# -- the projection of what other services tell (feedback.py)

task_holder = Table(
    "task_holder",
    metadata,
    Column("task", UUID, primary_key=True),
    Column("application", UUID, nullable=False, index=True),
    Column("item", UUID),
    Column("department", Text),
    Column("treasury", Text),
    Column("due_on", Date),
    Column("result", Text),
    Column("completed_on", Date),
    Column("suspended_at", DateTime(timezone=True)),
    Column("resumed_at", DateTime(timezone=True)),
)
Index(
    "ix_task_holder_department",
    task_holder.c.treasury,
    task_holder.c.department,
    postgresql_where=task_holder.c.completed_on.is_(None),
)

item_result = Table(
    "item_result",
    metadata,
    Column("item", UUID, primary_key=True),
    Column("application", UUID, nullable=False, index=True),
    Column("number", Text, index=True),
    Column("category", Text),
    Column("decided_on", Date),
    Column("valid_to", Date),
    Column("result", Text),
    Column("reason", Text),
)

payment = Table(
    "payment",
    metadata,
    Column("order", UUID, primary_key=True),
    Column("application", UUID, nullable=False, index=True),
    Column("item", UUID),
    Column("benefit", Text),
    Column("instalment", Integer),
    Column("treasury", Text),
    Column("fen", BigInteger),
    Column("due_on", Date),
    Column("funded", Text),
    Column("ordered_at", DateTime(timezone=True)),
    Column("sent_at", DateTime(timezone=True)),
    Column("bounced_at", DateTime(timezone=True)),
    Column("bounce_reason", Text),
    Column("settled_on", Date),
    Column("cancelled_on", Date),
)

case_end = Table(
    "case_end",
    metadata,
    Column("application", UUID, primary_key=True),
    Column("state", Text, nullable=False),
    Column("closed_on", Date, nullable=False),
)

public_notice = Table(
    "public_notice",
    metadata,
    Column("notice", UUID, primary_key=True),
    Column("application", UUID, nullable=False, index=True),
    Column("item", UUID, nullable=False),
    Column("category", Text, nullable=False),
    Column("treasury", Text, nullable=False),
    Column("opened_on", Date, nullable=False),
    Column("last_day", Date, nullable=False, index=True),
    Column("over_on", Date, comment="the day after the last, once it has come"),
    Column("withdrawn_on", Date),
)

objection = Table(
    "objection",
    metadata,
    Column("objection", UUID, primary_key=True),
    Column("notice", UUID, nullable=False, index=True),
    Column("application", UUID, nullable=False, index=True),
    Column("received_on", Date, nullable=False),
    Column("upheld", Boolean),
    Column("concluded_on", Date),
)
