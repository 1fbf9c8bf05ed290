"""The payment state of an order, what a line of a bank's result means, and what either forbids. No SQL, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from libs.common.errors import DomainError


class PaymentState(StrEnum):
    """Payment state (TERMS)."""

    UNFUNDED = "unfunded"
    DUE = "due"
    SENT = "sent"
    UNKNOWN = "unknown"
    SETTLED = "settled"
    BOUNCED = "bounced"
    CANCELLED = "cancelled"
    RECOVERING = "recovering"
    RECOVERED = "recovered"


S = PaymentState
TRANSITIONS = {
    (S.UNFUNDED, "fund"): S.DUE,
    (S.DUE, "send"): S.SENT,
    (S.SENT, "miss"): S.UNKNOWN,
    (S.SENT, "settle"): S.SETTLED,
    (S.UNKNOWN, "settle"): S.SETTLED,
    (S.SENT, "bounce"): S.BOUNCED,
    (S.UNKNOWN, "bounce"): S.BOUNCED,
    (S.SETTLED, "bounce"): S.BOUNCED,
    (S.BOUNCED, "reissue"): S.DUE,
    (S.DUE, "reissue"): S.DUE,
    (S.UNFUNDED, "redirect"): S.UNFUNDED,
    (S.DUE, "redirect"): S.DUE,
    (S.UNFUNDED, "cancel"): S.CANCELLED,
    (S.DUE, "cancel"): S.CANCELLED,
    (S.BOUNCED, "cancel"): S.CANCELLED,
    (S.SETTLED, "recover"): S.RECOVERING,
    (S.RECOVERING, "collect"): S.RECOVERED,
}
TITLES = {
    S.UNFUNDED: "待落实指标",
    S.DUE: "待支付",
    S.SENT: "已提交",
    S.UNKNOWN: "待回盘",
    S.SETTLED: "已到账",
    S.BOUNCED: "已退票",
    S.CANCELLED: "已取消",
    S.RECOVERING: "追缴中",
    S.RECOVERED: "已收回",
}


class CancelCause(StrEnum):
    """Why an order is cancelled: 自愿放弃, 不再符合条件, 重复发放, 已通过其他方式支付, 其他."""

    GIVEN_UP = "given_up"
    NOT_ENTITLED = "not_entitled"
    DUPLICATE = "duplicate"
    PAID_OTHERWISE = "paid_otherwise"
    OTHER = "other"


class OrderStateForbids(DomainError):
    """409: the order's payment state does not allow the operation."""

    status, code, title = 409, "order-state-forbids", "支付状态不允许此操作"
    detail = "该支付令当前为“{state}”，不能办理此操作。请刷新后按当前状态处理；已提交的支付须等待银行回盘。"


class OpenException(DomainError):
    """409: a line of a bank file that contradicts what is known of the order has not been resolved."""

    status, code, title = 409, "bank-exception-open", "存在未处理的回盘异常"
    detail = "该支付令有未处理的回盘异常，重新支付可能重复付款。请先与银行核实并处理异常。"


class NothingToReview(DomainError):
    """409: no condition of the policy asks for a review before the instalment."""

    status, code, title = 409, "nothing-to-review", "该期无须复核"
    detail = "该期的发放没有须复核的条件，到期自动生成支付令。"


class ReviewTooEarly(DomainError):
    """409: the time that the review is about has not begun."""

    status, code, title = 409, "review-too-early", "尚不能复核该期"
    detail = "该期自 {day} 起可以复核，届时请按当时的情况填写。"


class ReviewedElsewhere(DomainError):
    """409: the employer moved, and the talent office of another treasury reviews the instalment."""

    status, code, title = 409, "reviewed-elsewhere", "该期由其他财政的人才办复核"
    detail = "用人单位的隶属关系已变动，该期由{title}（{treasury}）承担，请由该级人才办复核；本级可以查看，不办理复核。"


class InstalmentOrdered(DomainError):
    """409: the instalment has its order already."""

    status, code, title = 409, "instalment-ordered", "该期已生成支付令"
    detail = "该期支付令已生成，不再复核；如不应支付，请在提交银行前取消该支付令。"


def next_state(state: PaymentState, action: str) -> PaymentState:
    """The state after an action. Raises OrderStateForbids."""
    try:
        return TRANSITIONS[state, action]
    except KeyError:
        raise OrderStateForbids(state=TITLES[state]) from None


class Outcome(StrEnum):
    """What a bank says of one payment."""

    CREDITED = "credited"
    BOUNCED = "bounced"
    PENDING = "pending"


class BounceReason(StrEnum):
    """Why a bank returned a payment, in our words: 户名不符, 账号不存在, 账户已销户, 账户受限, 其他原因."""

    NAME_DIFFERS = "name_differs"
    ACCOUNT_UNKNOWN = "account_unknown"
    ACCOUNT_CLOSED = "account_closed"
    ACCOUNT_RESTRICTED = "account_restricted"
    OTHER = "other"


class Verdict(StrEnum):
    """What is done with one line of a result file."""

    SETTLE = "settle"
    BOUNCE = "bounce"
    PENDING = "pending"
    REPEATED = "repeated"
    UNKNOWN_REFERENCE = "unknown_reference"
    WRONG_AMOUNT = "wrong_amount"
    CONTRADICTION = "contradiction"
    IMPLAUSIBLE_DATE = "implausible_date"
    MALFORMED = "malformed"

    @property
    def is_exception(self) -> bool:
        """Whether the line goes to the exceptions, for a person to resolve."""
        return self in EXCEPTIONS


EXCEPTIONS: Mapping[Verdict, tuple[str, str]] = {
    Verdict.UNKNOWN_REFERENCE: ("没有此付款编号", "请与银行核对该行的付款编号，查明是否属于其他系统的付款。"),
    Verdict.WRONG_AMOUNT: ("金额与支付令不符", "请与银行核对实付金额；该支付令不得重新支付，直至查明。"),
    Verdict.CONTRADICTION: ("与已知结果矛盾", "同一付款已有另一结果，请与银行查明以哪一结果为准。"),
    Verdict.IMPLAUSIBLE_DATE: ("日期不可能", "入账或退票日期早于付款或晚于今天，请银行更正。"),
    Verdict.MALFORMED: ("该行无法读取", "请对照 docs/bank-file.md 核对格式，由银行重新提供。"),
}
"""Every kind of exception, with its Chinese words and what to do."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a line says of a payment that we sent: fen, outcome, the bank's day, its reason for a bounce, and how the
    bank put that, masked where it may be a number of a person."""

    fen: int
    outcome: Outcome
    on: date | None
    reason: BounceReason | None = None
    said: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """What we know of a payment that we sent: fen, the day it left, and the last outcome that the bank gave of it."""

    fen: int
    sent_on: date
    outcome: Outcome | None
    outcome_on: date | None


def judge(sent: Sent | None, claim: Claim, *, today: date) -> Verdict:
    """What to do with one claim. A bounce after a credit is a return of the money; a credit after a bounce is a
    contradiction, for the order may be on its way a second time."""  # fmt: skip
    if sent is None:
        return Verdict.UNKNOWN_REFERENCE
    if claim.fen != sent.fen:
        return Verdict.WRONG_AMOUNT
    if sent.outcome is None:
        return _first(sent, claim, today)
    if claim.outcome is Outcome.PENDING:
        return Verdict.REPEATED  # an interim file that came late: more is known already
    if claim.outcome is sent.outcome and claim.on == sent.outcome_on:
        return Verdict.REPEATED
    returned = sent.outcome is Outcome.CREDITED and claim.outcome is Outcome.BOUNCED
    if returned and claim.on and sent.outcome_on and sent.outcome_on <= claim.on <= today:
        return Verdict.BOUNCE
    return Verdict.CONTRADICTION


def _first(sent: Sent, claim: Claim, today: date) -> Verdict:
    if claim.outcome is Outcome.PENDING:
        return Verdict.PENDING
    if claim.on is None or not sent.sent_on <= claim.on <= today:
        return Verdict.IMPLAUSIBLE_DATE
    return Verdict.SETTLE if claim.outcome is Outcome.CREDITED else Verdict.BOUNCE


def judge_together(sent: Sent | None, claims: list[Claim], *, today: date) -> list[Verdict]:
    """Judge every line of one file about one payment. Equal lines count once; lines of one file that contradict each
    other have no order among them, so none of them is believed."""
    final = {claim for claim in claims if claim.outcome is not Outcome.PENDING}
    if sent is not None and len(final) > 1:
        return [Verdict.CONTRADICTION if claim in final else Verdict.REPEATED for claim in claims]
    seen: set[Claim] = set()
    verdicts = []
    for claim in claims:
        behind = claim in seen or (final and claim not in final)
        verdicts.append(Verdict.REPEATED if behind else judge(sent, claim, today=today))
        seen.add(claim)
    return verdicts
