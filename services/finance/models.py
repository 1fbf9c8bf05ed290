"""The tables of finance. Unique keys, checks and one trigger, not code, keep money from being paid or counted twice."""

from datetime import datetime

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from libs.common import policy
from libs.common.db import metadata as make_metadata
from libs.common.idempotency import idempotency_table
from libs.common.migration import APPEND_ONLY
from libs.common.packs import policy_pack_table
from services.finance.domain import Outcome, PaymentState, Verdict

metadata = make_metadata()
idempotency_table(metadata)
policy_pack_table(metadata)


def _one_of(column: str, *values: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _recorded_at() -> Column[datetime]:
    return Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())


def _policy() -> tuple[Column[str], Column[str], Column[str]]:
    return (
        Column("policy_city", Text, nullable=False),
        Column("policy_version", Text, nullable=False),
        Column("policy_sha256", Text, nullable=False),
    )


_MONTH = r"'^\d{4}-(0[1-9]|1[0-2])$'"

application = Table(
    "application",
    metadata,
    Column("id", UUID, primary_key=True, comment="the key of its events: this row is locked before one is emitted"),
    _recorded_at(),
)

quota = Table(
    "quota",
    metadata,
    Column("id", UUID, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("treasury", Text, nullable=False),
    Column("benefit", Text, nullable=False),
    Column("fiscal_year", SmallInteger, nullable=False),
    Column("number", Text, comment="null while no quota was given: the row is there to be locked"),
    Column("budget_unit", Text),
    Column("project", Text),
    Column("functional", Text),
    Column("economic_department", Text),
    Column("economic_government", Text),
    Column("amount_fen", BigInteger, nullable=False, server_default="0"),
    Column("committed_fen", BigInteger, nullable=False, server_default="0"),
    _recorded_at(),
    UniqueConstraint("treasury", "benefit", "fiscal_year"),
    UniqueConstraint("treasury", "number"),
    CheckConstraint("committed_fen >= 0 AND committed_fen <= amount_fen", name="within_cap"),
    CheckConstraint("amount_fen = 0 OR number IS NOT NULL", name="numbered"),
)

quota_change = Table(
    "quota_change",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("quota_id", UUID, ForeignKey("quota.id"), nullable=False),
    Column("fen", BigInteger, nullable=False, comment="positive: an increase"),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    _recorded_at(),
    Index("ix_quota_change_quota_id", "quota_id"),
    info=APPEND_ONLY,
)

entitlement = Table(
    "entitlement",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("application", UUID, ForeignKey("application.id"), nullable=False),
    Column("item", UUID, nullable=False),
    Column("benefit", Text, nullable=False),
    Column("number", Text, nullable=False),
    Column("certification", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("beneficiary", UUID, nullable=False),
    Column("payee_account", UUID),
    Column("employer", UUID),
    Column("employer_kind", Text, nullable=False),
    Column("treasury", Text, nullable=False, comment="the affiliated treasury on the day of acceptance"),
    Column("accepted_on", Date, nullable=False),
    Column("decided_on", Date, nullable=False),
    Column("total_fen", BigInteger, nullable=False),
    *_policy(),
    _recorded_at(),
    UniqueConstraint("application", "item"),
    UniqueConstraint("beneficiary", "benefit"),
    CheckConstraint("total_fen > 0", name="total"),
    info=APPEND_ONLY,
)

instalment = Table(
    "instalment",
    metadata,
    Column("entitlement_id", UUID, ForeignKey("entitlement.id"), nullable=False),
    Column("number", SmallInteger, nullable=False),
    Column("amount_fen", BigInteger, nullable=False, comment="the employer's part included"),
    Column("review_from", Date, comment="from when it may be reviewed; null: ordered without a review"),
    PrimaryKeyConstraint("entitlement_id", "number"),
    CheckConstraint("amount_fen >= 0", name="amount"),
    Index(
        "ix_instalment_review_from",
        "review_from",
        "entitlement_id",
        "number",
        postgresql_where=text("review_from IS NOT NULL"),
    ),
    info=APPEND_ONLY,
)

instalment_review = Table(
    "instalment_review",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("serial", BigInteger, Identity(always=False), nullable=False, unique=True),
    Column("entitlement_id", UUID, nullable=False),
    Column("number", SmallInteger, nullable=False, comment="of the instalment; its last review counts"),
    Column("verdict", Text, nullable=False),
    Column("facts", JSONB, nullable=False, comment="what the officer stated"),
    Column("clauses", JSONB, nullable=False, comment="each condition as it was tried and told"),
    Column("actor", Text, nullable=False),
    _recorded_at(),
    ForeignKeyConstraint(["entitlement_id", "number"], ["instalment.entitlement_id", "instalment.number"]),
    _one_of("verdict", *policy.Verdict),
    Index("ix_instalment_review_instalment", "entitlement_id", "number", "serial"),
    info=APPEND_ONLY,
)

employer_affiliation = Table(
    "employer_affiliation",
    metadata,
    Column("employer", UUID, nullable=False),
    Column("revision", BigInteger, nullable=False, comment="of an employer the greatest counts"),
    Column("affiliations", JSONB, nullable=False, comment="all of them, as intake told: kind, treasury, days"),
    _recorded_at(),
    PrimaryKeyConstraint("employer", "revision"),
    info=APPEND_ONLY,
)

beneficiary = Table(
    "beneficiary",
    metadata,
    Column("id", UUID, primary_key=True, comment="locked before an order of theirs is given its account"),
)

payee_change = Table(
    "payee_change",
    metadata,
    Column("application", UUID, primary_key=True, comment="the application that changed the account"),
    Column("item", UUID, nullable=False),
    Column("beneficiary", UUID, ForeignKey("beneficiary.id"), nullable=False),
    Column("payee_account", UUID, nullable=False),
    Column("accepted_on", Date, nullable=False),
    Column("decided_on", Date, nullable=False),
    _recorded_at(),
    Index("ix_payee_change_beneficiary", "beneficiary", "accepted_on", "application"),
    info=APPEND_ONLY,
)

payout_order = Table(
    "payout_order",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("application", UUID, ForeignKey("application.id"), nullable=False),
    Column("item", UUID, nullable=False),
    Column("entitlement_id", UUID, nullable=False),
    Column("instalment", SmallInteger, nullable=False),
    Column("benefit", Text, nullable=False),
    Column("beneficiary", UUID, nullable=False),
    Column("treasury", Text, nullable=False, comment="the one that pays"),
    Column("public_fen", BigInteger, nullable=False, comment="what is paid"),
    Column("employer_fen", BigInteger, nullable=False),
    Column("shares", JSONB, nullable=False, comment="fen by treasury; sums to public_fen"),
    Column("rules", JSONB, nullable=False, comment="ids of the rules that decided the split"),
    Column("due_on", Date, nullable=False),
    Column("quota_id", UUID, ForeignKey("quota.id"), nullable=False),
    Column("payee_account", UUID),
    Column("attempt", SmallInteger, nullable=False, server_default="1"),
    Column("state", Text, nullable=False),
    Column("settled_on", Date),
    *_policy(),
    _recorded_at(),
    ForeignKeyConstraint(["entitlement_id", "instalment"], ["instalment.entitlement_id", "instalment.number"]),
    UniqueConstraint("entitlement_id", "instalment"),
    _one_of("state", *PaymentState),
    CheckConstraint("public_fen > 0 AND employer_fen >= 0", name="amounts"),
    CheckConstraint("(state IN ('settled', 'recovering', 'recovered')) = (settled_on IS NOT NULL)", name="settled_on"),
    Index("ix_payout_order_treasury_state", "treasury", "state", "due_on", "id"),
    Index("ix_payout_order_beneficiary", "beneficiary"),
    Index("ix_payout_order_application", "application"),
    Index("ix_payout_order_unfunded", "quota_id", postgresql_where=text("state = 'unfunded'")),
)

order_history = Table(
    "order_history",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("order_id", UUID, ForeignKey("payout_order.id"), nullable=False),
    Column("action", Text, nullable=False),
    Column("state", Text, nullable=False, comment="the state after it"),
    Column("attempt", SmallInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text),
    Column("record", UUID, comment="the batch, the result file, or the application of a change of account"),
    Column("payee_account", UUID, comment="where the order goes from this step on, where the step says so"),
    _recorded_at(),
    Index("ix_order_history_order_id", "order_id", "id"),
    info=APPEND_ONLY,
)

payout_batch = Table(
    "payout_batch",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("serial", BigInteger, Identity(always=False), nullable=False, unique=True),
    Column("number", Text, nullable=False, unique=True),
    Column("channel", Text, nullable=False),
    Column("treasury", Text, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("total_fen", BigInteger, nullable=False),
    Column("made_on", Date, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("file", LargeBinary, nullable=False, comment="sealed"),
    Column("sha256", Text, nullable=False, comment="of the file as the bank gets it"),
    _recorded_at(),
    CheckConstraint("lines > 0 AND total_fen > 0", name="not_empty"),
    Index("ix_payout_batch_treasury", "treasury", "serial"),
    info=APPEND_ONLY,
)

batch_line = Table(
    "batch_line",
    metadata,
    Column("reference", Text, primary_key=True, comment="order and attempt: what the bank answers to"),
    Column("batch_id", UUID, ForeignKey("payout_batch.id"), nullable=False),
    Column("order_id", UUID, ForeignKey("payout_order.id"), nullable=False),
    Column("attempt", SmallInteger, nullable=False),
    Column("fen", BigInteger, nullable=False),
    UniqueConstraint("order_id", "attempt"),  # an attempt is in one file, ever
    Index("ix_batch_line_batch_id", "batch_id"),
    info=APPEND_ONLY,
)

file_access = Table(
    "file_access",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("batch_id", UUID, ForeignKey("payout_batch.id"), nullable=False),
    Column("client", Text, nullable=False),
    Column("actor", Text, nullable=False),
    _recorded_at(),
    Index("ix_file_access_batch_id", "batch_id"),
    info=APPEND_ONLY,
)

bank_result_file = Table(
    "bank_result_file",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("treasury", Text, nullable=False),
    Column("number", Text, nullable=False, comment="the bank's own"),
    Column("sha256", Text, nullable=False),
    Column("file", LargeBinary, nullable=False, comment="sealed"),
    Column("lines", Integer, nullable=False),
    Column("imported_by", Text, nullable=False),
    _recorded_at(),
    UniqueConstraint("treasury", "sha256"),
    UniqueConstraint("treasury", "number"),
    info=APPEND_ONLY,
)

bank_result_line = Table(
    "bank_result_line",
    metadata,
    Column("file_id", UUID, ForeignKey("bank_result_file.id"), nullable=False),
    Column("line", Integer, nullable=False),
    Column("reference", Text, nullable=False),
    Column("order_id", UUID, ForeignKey("payout_order.id")),
    Column("fen", BigInteger),
    Column("outcome", Text),
    Column("on_day", Date),
    Column("reason", Text),
    Column("verdict", Text, nullable=False),
    _recorded_at(),
    PrimaryKeyConstraint("file_id", "line"),
    _one_of("outcome", *Outcome),
    _one_of("verdict", *Verdict),
    Index("ix_bank_result_line_reference", "reference"),
    info=APPEND_ONLY,
)

bank_exception = Table(
    "bank_exception",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("treasury", Text, nullable=False),
    Column("file_id", UUID, nullable=False),
    Column("line", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("order_id", UUID, ForeignKey("payout_order.id")),
    Column("expected_fen", BigInteger),
    Column("fen", BigInteger),
    Column("resolved_at", DateTime(timezone=True)),
    Column("resolved_by", Text),
    Column("resolution", Text),
    _recorded_at(),
    ForeignKeyConstraint(["file_id", "line"], ["bank_result_line.file_id", "bank_result_line.line"]),
    UniqueConstraint("file_id", "line"),
    _one_of("kind", *(verdict for verdict in Verdict if verdict.is_exception)),
    CheckConstraint("num_nonnulls(resolved_at, resolved_by, resolution) IN (0, 3)", name="resolved"),
    Index("ix_bank_exception_order_id", "order_id"),
    Index("ix_bank_exception_treasury", "treasury", "recorded_at", "id"),
)

period = Table(
    "period",
    metadata,
    Column("treasury", Text, nullable=False),
    Column("month", Text, nullable=False),
    Column("closed_at", DateTime(timezone=True)),
    Column("closed_by", Text),
    Column("reason", Text, comment="why it was closed before its end"),
    PrimaryKeyConstraint("treasury", "month"),
    CheckConstraint(f"month ~ {_MONTH}", name="month"),
    CheckConstraint("(closed_at IS NULL) = (closed_by IS NULL)", name="closed"),
)

book = Table(
    "book",
    metadata,
    Column("treasury", Text, primary_key=True, comment="locked before fiscal_settlement.closed is emitted under it"),
)

settlement = Table(
    "settlement",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("treasury", Text, nullable=False, comment="the one that paid and is owed"),
    Column("month", Text, nullable=False),
    Column("city_treasury", Text, nullable=False),
    Column("fen", BigInteger, nullable=False, comment="positive where it is owed"),
    Column("owed", JSONB, nullable=False, server_default="{}", comment="that by debtor; empty before 0009: the city"),
    Column("route", Text, nullable=False),
    Column("rule", Text, comment="id of the rule that chose the route"),
    Column("through", Text),
    Column("closed_at", DateTime(timezone=True), nullable=False),
    Column("closed_by", Text, nullable=False),
    *_policy(),
    UniqueConstraint("treasury", "month"),
    ForeignKeyConstraint(["treasury", "month"], ["period.treasury", "period.month"]),
    _one_of("route", "direct", "via_province"),
    CheckConstraint("(route = 'via_province') = (through IS NOT NULL)", name="through"),
    info=APPEND_ONLY,
)

account = Table(
    "account",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("treasury", Text, nullable=False, comment="whose book"),
    Column("kind", Text, nullable=False),
    Column("counterparty", Text, nullable=False, server_default="", comment="the treasury owing or owed"),
    Column("balance", BigInteger, nullable=False, server_default="0", comment="fen; debit positive"),
    UniqueConstraint("treasury", "kind", "counterparty"),
    _one_of("kind", "cash", "expenditure", "due_from", "due_to"),
    CheckConstraint("(kind IN ('due_from', 'due_to')) = (counterparty <> '')", name="counterparty"),
)

transfer = Table(
    "transfer",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("key", Text, nullable=False, unique=True, comment="what it stands for: never posted twice"),
    Column("kind", Text, nullable=False),
    Column("treasury", Text, nullable=False, comment="whose period it belongs to"),
    Column("month", Text, nullable=False),
    Column("posted_on", Date, nullable=False),
    Column("order_id", UUID, ForeignKey("payout_order.id")),
    Column("attempt", SmallInteger),
    Column("settlement_id", UUID, ForeignKey("settlement.id")),
    _recorded_at(),
    ForeignKeyConstraint(["treasury", "month"], ["period.treasury", "period.month"]),
    _one_of("kind", "payout", "payout_reversal", "settlement"),
    CheckConstraint("(kind = 'settlement') = (settlement_id IS NOT NULL)", name="settlement"),
    CheckConstraint("(kind = 'settlement') = (order_id IS NULL)", name="order_id"),
    Index("ix_transfer_treasury_month", "treasury", "month"),
    Index("ix_transfer_order_id", "order_id"),
    info=APPEND_ONLY,
)

entry = Table(
    "entry",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("transfer_id", UUID, ForeignKey("transfer.id"), nullable=False),
    Column("account_id", BigInteger, ForeignKey("account.id"), nullable=False),
    Column("fen", BigInteger, nullable=False, comment="debit positive, credit negative"),
    UniqueConstraint("transfer_id", "account_id"),
    CheckConstraint("fen <> 0", name="fen"),
    Index("ix_entry_account_id", "account_id"),
    info=APPEND_ONLY,
)

# Each statement that adds entries adds what balances, so their sum does; whether a transfer has any is asked at the
# commit. The same text stands in migrations 0002 and 0007.
BALANCE_FUNCTIONS = {
    "refuse_unbalanced_entries": """
DECLARE
    checked uuid;
BEGIN
    SELECT e.transfer_id INTO checked FROM added AS e JOIN account AS a ON a.id = e.account_id
     GROUP BY e.transfer_id, a.treasury HAVING sum(e.fen) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transfer % does not balance in every book', checked USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END""",
    "refuse_unbalanced_transfer": """
BEGIN
    IF NOT EXISTS (SELECT 1 FROM entry WHERE transfer_id = NEW.id) THEN
        RAISE EXCEPTION 'transfer % has no entries', NEW.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END""",
}
BALANCE_TRIGGERS = (
    """
CREATE TRIGGER entry_balances AFTER INSERT ON entry REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION refuse_unbalanced_entries()
""",
    """
CREATE CONSTRAINT TRIGGER transfer_balances AFTER INSERT ON transfer DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION refuse_unbalanced_transfer()
""",
)
_FUNCTION = "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $${body} $$"
for _statement in (
    *(_FUNCTION.format(name=name, body=body) for name, body in BALANCE_FUNCTIONS.items()),
    *BALANCE_TRIGGERS,
):
    event.listen(metadata, "after_create", DDL(_statement.replace("%", "%%")))  # type: ignore[no-untyped-call]
