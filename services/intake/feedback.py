"""Feedback: what the other services tell of an application, as a projection, and the joint feedback (集中反馈) from it.

Every handler takes batches, changes rows by their business key, and takes events in any order between topics. The
tables of `PROJECTION_TABLES` can be emptied and made anew from the log; the timeline is history and only ever grows: a
step told once is not told again.
"""

import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.events import (
    ApplicationClosed,
    ApplicationEvent,
    ApplicationReceived,
    BenefitApproved,
    CaseResumed,
    CaseSuspended,
    DeptAssigned,
    DeptCompleted,
    Event,
    FlatHeld,
    FlatLeased,
    FlatReleased,
    InstalmentReviewed,
    LeaseEnded,
    ObjectionConcluded,
    ObjectionReceived,
    PayeeAccountChanged,
    PayoutBounced,
    PayoutCancelled,
    PayoutOrdered,
    PayoutSent,
    PayoutSettled,
    PublicNoticeOpened,
    PublicNoticeWithdrawn,
    TalentCertified,
    WithdrawalIgnored,
    columns_of,
)
from libs.common.inbox import Early, EventHandler, cause
from libs.common.money import format_yuan
from libs.common.packs import Packs
from libs.common.policy import FactValueType, Pack, Verdict
from services.intake import directories, notices
from services.intake.directories import Asked
from services.intake.domain import TITLES
from services.intake.eligibility import decided_anew
from services.intake.timeline import Step, tell
from services.intake.views import benefit_title, category_title, department_title, item_title

E = TypeVar("E", bound=ApplicationEvent)
Words = tuple[str, str]
"""Title and detail of a step, as applicants read them."""

PROJECTION_TABLES = ("task_holder", "item_result", "payment", "case_end", "public_notice", "objection")

_KNOWN = text("SELECT id FROM application WHERE id = ANY(CAST(:ids AS uuid[]))")
_ITEM_CODES = text("SELECT id, code FROM application_item WHERE id = ANY(CAST(:ids AS uuid[]))")
_ASSIGNED = text("""
    INSERT INTO task_holder AS t (task, application, item, department, treasury, due_on)
    SELECT * FROM unnest(CAST(:task AS uuid[]), CAST(:application AS uuid[]), CAST(:item AS uuid[]),
                         CAST(:department AS text[]), CAST(:treasury AS text[]), CAST(:due_on AS date[]))
    ON CONFLICT (task) DO UPDATE SET
        item = excluded.item, department = excluded.department, treasury = excluded.treasury,
        due_on = COALESCE(t.due_on, excluded.due_on)
""")
_COMPLETED = text("""
    INSERT INTO task_holder (task, application, item, department, treasury, result, completed_on)
    SELECT * FROM unnest(CAST(:task AS uuid[]), CAST(:application AS uuid[]), CAST(:item AS uuid[]),
                         CAST(:department AS text[]), CAST(:treasury AS text[]), CAST(:result AS text[]),
                         CAST(:completed_on AS date[]))
    ON CONFLICT (task) DO UPDATE SET
        item = excluded.item, department = excluded.department, treasury = excluded.treasury,
        result = excluded.result, completed_on = excluded.completed_on
""")
_DECIDED = text("""
    SELECT i.id, i.application, i.decision, a.accepted_on, e.credit_code
      FROM application_item AS i JOIN application AS a ON a.id = i.application
      LEFT JOIN employer AS e ON e.ref = a.employer
     WHERE a.id = ANY(CAST(:ids AS uuid[])) AND i.decision IS NOT NULL AND a.accepted_on IS NOT NULL
     ORDER BY i.id FOR UPDATE OF i
""")
_DECIDE = text("""
    UPDATE application_item SET decision = r.decision::jsonb
      FROM unnest(CAST(:ids AS uuid[]), CAST(:decisions AS text[])) AS r (id, decision)
     WHERE application_item.id = r.id
""")
_SUSPENDED = text("""
    INSERT INTO task_holder AS t (task, application, suspended_at)
    SELECT task, application, max(at)
      FROM unnest(CAST(:task AS uuid[]), CAST(:application AS uuid[]), CAST(:time AS timestamptz[]))
           AS r (task, application, at)
     GROUP BY task, application
    ON CONFLICT (task) DO UPDATE SET suspended_at = GREATEST(t.suspended_at, excluded.suspended_at)
""")
_RESUMED = text("""
    INSERT INTO task_holder AS t (task, application, resumed_at, due_on)
    SELECT DISTINCT ON (task) task, application, at, due_on
      FROM unnest(CAST(:task AS uuid[]), CAST(:application AS uuid[]), CAST(:time AS timestamptz[]),
                  CAST(:due_on AS date[])) AS r (task, application, at, due_on)
     ORDER BY task, at DESC
    ON CONFLICT (task) DO UPDATE SET
        resumed_at = GREATEST(t.resumed_at, excluded.resumed_at),
        due_on = CASE WHEN t.resumed_at > excluded.resumed_at THEN t.due_on ELSE excluded.due_on END
""")
_CERTIFIED = text("""
    INSERT INTO item_result (item, application, number, category, decided_on, valid_to)
    SELECT * FROM unnest(CAST(:item AS uuid[]), CAST(:application AS uuid[]), CAST(:number AS text[]),
                         CAST(:category AS text[]), CAST(:decided_on AS date[]), CAST(:valid_to AS date[]))
    ON CONFLICT (item) DO UPDATE SET
        number = excluded.number, category = excluded.category, decided_on = excluded.decided_on,
        valid_to = excluded.valid_to
""")
_RESULTS = text("""
    INSERT INTO item_result AS r (item, application, result, reason, decided_on)
    SELECT * FROM unnest(CAST(:items AS uuid[]), CAST(:applications AS uuid[]), CAST(:results AS text[]),
                         CAST(:reasons AS text[]), CAST(:decided AS date[]))
    ON CONFLICT (item) DO UPDATE SET
        result = excluded.result, reason = excluded.reason, decided_on = COALESCE(excluded.decided_on, r.decided_on)
""")
_CLOSED = text("""
    INSERT INTO case_end (application, state, closed_on)
    SELECT * FROM unnest(CAST(:application AS uuid[]), CAST(:state AS text[]), CAST(:closed_on AS date[]))
    ON CONFLICT (application) DO UPDATE SET state = excluded.state, closed_on = excluded.closed_on
""")
_ORDERED = text("""
    INSERT INTO payment AS p
           ("order", application, item, benefit, instalment, treasury, fen, due_on, funded, ordered_at)
    SELECT DISTINCT ON (r."order") r.*
      FROM unnest(CAST(:order AS uuid[]), CAST(:application AS uuid[]), CAST(:item AS uuid[]),
                  CAST(:benefit AS text[]), CAST(:instalment AS integer[]), CAST(:treasury AS text[]),
                  CAST(:fen AS bigint[]), CAST(:due_on AS date[]), CAST(:state AS text[]), CAST(:time AS timestamptz[]))
           AS r ("order", application, item, benefit, instalment, treasury, fen, due_on, funded, ordered_at)
     ORDER BY r."order", r.ordered_at DESC
    ON CONFLICT ("order") DO UPDATE SET
        item = excluded.item, benefit = excluded.benefit, instalment = excluded.instalment,
        treasury = excluded.treasury, fen = excluded.fen, due_on = excluded.due_on, funded = excluded.funded,
        ordered_at = excluded.ordered_at
     WHERE p.ordered_at IS NULL OR p.ordered_at <= excluded.ordered_at
""")
_SENT = text("""
    INSERT INTO payment AS p ("order", application, sent_at)
    SELECT "order", application, max(at)
      FROM unnest(CAST(:order AS uuid[]), CAST(:application AS uuid[]), CAST(:time AS timestamptz[]))
           AS r ("order", application, at)
     GROUP BY "order", application
    ON CONFLICT ("order") DO UPDATE SET sent_at = GREATEST(p.sent_at, excluded.sent_at)
""")
_SETTLED = text("""
    INSERT INTO payment ("order", application, item, benefit, instalment, treasury, fen, due_on, settled_on)
    SELECT DISTINCT ON (r."order") r.*
      FROM unnest(CAST(:order AS uuid[]), CAST(:application AS uuid[]), CAST(:item AS uuid[]),
                  CAST(:benefit AS text[]), CAST(:instalment AS integer[]), CAST(:treasury AS text[]),
                  CAST(:fen AS bigint[]), CAST(:due_on AS date[]), CAST(:settled_on AS date[]))
           AS r ("order", application, item, benefit, instalment, treasury, fen, due_on, settled_on)
    ON CONFLICT ("order") DO UPDATE SET
        item = excluded.item, benefit = excluded.benefit, instalment = excluded.instalment,
        treasury = excluded.treasury, fen = excluded.fen, due_on = excluded.due_on, settled_on = excluded.settled_on
""")
_BOUNCED = text("""
    INSERT INTO payment AS p ("order", application, item, bounced_at, bounce_reason)
    SELECT DISTINCT ON (r."order") r.*
      FROM unnest(CAST(:order AS uuid[]), CAST(:application AS uuid[]), CAST(:item AS uuid[]),
                  CAST(:time AS timestamptz[]), CAST(:reason AS text[]))
           AS r ("order", application, item, bounced_at, bounce_reason)
     ORDER BY r."order", r.bounced_at DESC
    ON CONFLICT ("order") DO UPDATE SET
        item = excluded.item, bounced_at = excluded.bounced_at, bounce_reason = excluded.bounce_reason,
        settled_on = NULL
""")
_CANCELLED = text("""
    INSERT INTO payment ("order", application, item, cancelled_on)
    SELECT * FROM unnest(CAST(:order AS uuid[]), CAST(:application AS uuid[]), CAST(:item AS uuid[]),
                         CAST(:cancelled_on AS date[]))
    ON CONFLICT ("order") DO UPDATE SET item = excluded.item, cancelled_on = excluded.cancelled_on
""")

# 行政许可法 第四十五条; codes are workflow's.
_SUSPENSIONS = {
    "hearing": "听证",
    "testing": "检验检测",
    "inspection": "检疫勘验",
    "appraisal": "鉴定",
    "expert_review": "专家评审",
    "public_notice": "公示",
    "objection": "异议核查",
}
# Codes are finance's; of what it calls `other` the bank alone knows.
_BOUNCE_REASONS = {
    "name_differs": "户名不符",
    "account_unknown": "账号不存在",
    "account_closed": "账户已销户",
    "account_restricted": "账户受限",
}
# Codes are finance's. What it calls `other` is between the office and the applicant: no words of ours.
_CANCEL_CAUSES = {
    "given_up": "自愿放弃",
    "not_entitled": "不再符合条件",
    "duplicate": "重复发放",
    "paid_otherwise": "已通过其他方式支付",
}


class Feedback:
    """The handlers; they need the packs, whose titles applicants read."""

    def __init__(self, packs: Packs) -> None:
        self._packs = packs

    def handlers(self) -> Mapping[type[Event], EventHandler]:
        """Each event that intake hears, with its handler."""
        return {event: partial(handler, self) for event, handler in HANDLERS.items()}

    async def on_dept_assigned(self, tx: AsyncConnection, events: Sequence[DeptAssigned]) -> None:
        """A department holds a task now: until it is done, that department may read the application."""

        def words(pack: Pack, event: DeptAssigned, item: str) -> Words:
            who = department_title(pack, event.department)
            return f"{who}已受理", f"“{item}”由{who}办理，应于 {event.due_on} 前办结。"

        await self._take(tx, events, words)
        await tx.execute(_ASSIGNED, columns_of(events, "task application item department treasury due_on"))

    async def on_dept_completed(self, tx: AsyncConnection, events: Sequence[DeptCompleted]) -> None:
        """A department returned its result."""

        def words(pack: Pack, event: DeptCompleted, item: str) -> Words:
            who = department_title(pack, event.department)
            passed = event.result == "passed"
            return f"{who}{'已办结' if passed else '核验未通过'}", f"“{item}”于 {event.completed_on} 反馈结果。"

        await self._take(tx, events, words)
        await tx.execute(
            _COMPLETED, columns_of(events, "task application item department treasury result completed_on")
        )
        await self._decide_anew(tx, [event for event in events if event.facts])

    async def _decide_anew(self, tx: AsyncConnection, events: Sequence[DeptCompleted]) -> None:
        """What the policy says of each application by what departments found, and by what the directories say now of
        the day of acceptance: both count before what was seen until now."""
        found: dict[UUID, dict[str, FactValueType]] = defaultdict(dict)
        for event in events:
            found[event.application].update(event.facts)
        if not found:
            return
        packs = {event.application: self._packs.get(event.policy) for event in events}
        rows = (await tx.execute(_DECIDED, {"ids": list(found)})).all()
        asked = [Asked(packs[row.application], row.credit_code, row.accepted_on) for row in rows]
        decided = {
            row.id: decided_anew(one.pack, row.decision, on=one.on, found={**found[row.application], **stands})
            for row, one, stands in zip(rows, asked, await directories.facts_of(tx, asked), strict=True)
        }
        told = [json.dumps(each, ensure_ascii=False) for each in decided.values()]
        await tx.execute(_DECIDE, {"ids": list(decided), "decisions": told})

    async def on_case_suspended(self, tx: AsyncConnection, events: Sequence[CaseSuspended]) -> None:
        """A clock stands still (特别程序)."""

        def words(_pack: Pack, event: CaseSuspended, _item: str) -> Words:
            reason = _SUSPENSIONS.get(event.reason, event.reason)
            return f"特别程序：{reason}", f"自 {event.from_day} 起不计入办理时限，事由：{reason}。"

        await self._take(tx, events, words)
        await tx.execute(_SUSPENDED, columns_of(events, "task application time"))

    async def on_case_resumed(self, tx: AsyncConnection, events: Sequence[CaseResumed]) -> None:
        """The clock runs again, and the due day moves."""

        def words(_pack: Pack, event: CaseResumed, _item: str) -> Words:
            return "特别程序结束", f"自 {event.to_day} 起继续计时，应于 {event.due_on} 前办结。"

        await self._take(tx, events, words)
        await tx.execute(_RESUMED, columns_of(events, "task application time due_on"))

    async def on_notice_opened(self, tx: AsyncConnection, events: Sequence[PublicNoticeOpened]) -> None:
        """A proposed certification is on public notice."""

        def words(pack: Pack, event: PublicNoticeOpened, item: str) -> Words:
            title = f"公示：拟认定为{category_title(pack, event.category)}"
            return title, f"“{item}”于 {event.opened_on} 公示，公示期至 {event.last_day}，不计入办理时限。"

        await self._take(tx, events, words)
        await notices.on_opened(tx, events)

    async def on_notice_withdrawn(self, tx: AsyncConnection, events: Sequence[PublicNoticeWithdrawn]) -> None:
        """A public notice no longer holds."""

        def words(_pack: Pack, event: PublicNoticeWithdrawn, item: str) -> Words:
            return "撤销公示", f"“{item}”的拟认定意见于 {event.withdrawn_on} 退回重新研究，原公示撤销。"

        await self._take(tx, events, words)
        await notices.on_withdrawn(tx, events)

    async def on_objection_received(self, tx: AsyncConnection, events: Sequence[ObjectionReceived]) -> None:
        """Somebody objected."""

        def words(_pack: Pack, event: ObjectionReceived, item: str) -> Words:
            return "收到异议", f"{event.received_on} 收到对“{item}”公示内容的异议，正在核查。"

        await self._take(tx, events, words)
        await notices.on_received(tx, events)

    async def on_objection_concluded(self, tx: AsyncConnection, events: Sequence[ObjectionConcluded]) -> None:
        """An objection was looked into."""

        def words(_pack: Pack, event: ObjectionConcluded, item: str) -> Words:
            result = "成立" if event.upheld else "不成立"
            return (
                f"异议核查结论：{result}",
                f"对“{item}”公示内容的异议于 {event.concluded_on} 核查完毕，异议{result}。",
            )

        await self._take(tx, events, words)
        await notices.on_concluded(tx, events)

    async def on_talent_certified(self, tx: AsyncConnection, events: Sequence[TalentCertified]) -> None:
        """A certification has its number and category."""

        def words(pack: Pack, event: TalentCertified, _item: str) -> Words:
            detail = f"认定编号 {event.number}，{event.decided_on} 认定，有效期至 {event.valid_to}。"
            return f"已认定：{category_title(pack, event.category)}", detail

        await self._take(tx, events, words)
        await tx.execute(_CERTIFIED, columns_of(events, "item application number category decided_on valid_to"))

    async def on_benefit_approved(self, tx: AsyncConnection, events: Sequence[BenefitApproved]) -> None:
        """A benefit is approved."""

        def words(pack: Pack, event: BenefitApproved, _item: str) -> Words:
            detail = f"{event.decided_on} 批准，编号 {event.number}。"
            return f"已批准：{benefit_title(pack, event.benefit)}", detail

        await self._take(tx, events, words)
        columns = columns_of(events, "item application number category decided_on")
        await tx.execute(_CERTIFIED, {**columns, "valid_to": [None] * len(events)})

    async def on_payee_account_changed(self, tx: AsyncConnection, events: Sequence[PayeeAccountChanged]) -> None:
        """Money goes to another account from now on."""

        def words(_pack: Pack, _event: PayeeAccountChanged, _item: str) -> Words:
            detail = "尚未提交银行的款项和以后各期付至新账户；已提交银行的，以提交时的账户为准。"
            return "收款账户已变更", detail

        await self._take(tx, events, words)

    async def on_application_closed(self, tx: AsyncConnection, events: Sequence[ApplicationClosed]) -> None:
        """Workflow came to the end: each item has its result, and they are fed back together."""

        def words(_pack: Pack, event: ApplicationClosed, _item: str) -> Words:
            return TITLES[event.state], f"{event.closed_on} 办理结束，共 {len(event.items)} 个事项，结果集中反馈如下。"

        await self._take(tx, events, words)
        await tx.execute(_CLOSED, columns_of(events, "application state closed_on"))
        ends = [(event.application, item) for event in events for item in event.items]
        results = {
            "items": [item.item for _, item in ends],
            "applications": [application for application, _ in ends],
            "results": [item.result for _, item in ends],
            "reasons": [item.reason for _, item in ends],
            "decided": [item.decided_on for _, item in ends],
        }
        await tx.execute(_RESULTS, results)

    async def on_withdrawal_ignored(self, tx: AsyncConnection, events: Sequence[WithdrawalIgnored]) -> None:
        """A withdrawal came too late."""

        def words(_pack: Pack, event: WithdrawalIgnored, _item: str) -> Words:
            why = "已有事项作出决定" if event.reason == "decided" else "该申请已办理结束"
            return (
                "撤回未生效",
                f"收到撤回时{why}，结果以办理进度为准。如需放弃已获批的待遇，请联系人才办。",
            )

        await self._take(tx, events, words)

    async def on_payout_ordered(self, tx: AsyncConnection, events: Sequence[PayoutOrdered]) -> None:
        """A payout order was made."""

        def words(pack: Pack, event: PayoutOrdered, _item: str) -> Words:
            detail = f"{_instalment(pack, event)} {format_yuan(event.fen)}，应于 {event.due_on} 前到账。"
            return ("待支付" if event.state == "due" else "待落实指标"), detail

        await self._take(tx, events, words)
        names = "order application item benefit instalment treasury fen due_on state time"
        await tx.execute(_ORDERED, columns_of(events, names))

    async def on_payout_sent(self, tx: AsyncConnection, events: Sequence[PayoutSent]) -> None:
        """A payout order left for the bank."""

        def words(_pack: Pack, _event: PayoutSent, _item: str) -> Words:
            return "已提交银行", "款项已提交银行，等待银行回盘。"

        await self._take(tx, events, words)
        await tx.execute(_SENT, columns_of(events, "order application time"))

    async def on_payout_settled(self, tx: AsyncConnection, events: Sequence[PayoutSettled]) -> None:
        """The bank confirmed the credit."""

        def words(pack: Pack, event: PayoutSettled, _item: str) -> Words:
            return "已到账", f"{_instalment(pack, event)} {format_yuan(event.fen)}已于 {event.settled_on} 到账。"

        await self._take(tx, events, words)
        names = "order application item benefit instalment treasury fen due_on settled_on"
        await tx.execute(_SETTLED, columns_of(events, names))

    async def on_payout_bounced(self, tx: AsyncConnection, events: Sequence[PayoutBounced]) -> None:
        """The bank returned the payment."""

        def words(_pack: Pack, event: PayoutBounced, item: str) -> Words:
            why = _BOUNCE_REASONS.get(event.reason, "")
            because = f"，原因：{why}" if why else ""
            told = f"“{item}”的款项于 {event.bounced_on} 被银行退回{because}。"
            return "已退票", f"{told}请核对收款账户；如有变更，请登记新账户。"

        await self._take(tx, events, words)
        await tx.execute(_BOUNCED, columns_of(events, "order application item time reason"))

    async def on_payout_cancelled(self, tx: AsyncConnection, events: Sequence[PayoutCancelled]) -> None:
        """A payout order was cancelled, for good."""

        def words(_pack: Pack, event: PayoutCancelled, item: str) -> Words:
            why = _CANCEL_CAUSES.get(event.reason, "")
            because = f"，原因：{why}" if why else "，具体原因请咨询所属财政部门"
            return "已取消", f"“{item}”的一笔支付已于 {event.cancelled_on} 取消{because}。"

        await self._take(tx, events, words)
        await tx.execute(_CANCELLED, columns_of(events, "order application item cancelled_on"))

    async def on_instalment_reviewed(self, tx: AsyncConnection, events: Sequence[InstalmentReviewed]) -> None:
        """What must still hold was reviewed before a later instalment."""

        def words(pack: Pack, event: InstalmentReviewed, _item: str) -> Words:
            return f"发放前复核：{Verdict(event.verdict).words}", _after_review(pack, event)

        await self._take(tx, events, words)

    async def on_flat_held(self, tx: AsyncConnection, events: Sequence[FlatHeld]) -> None:
        """A flat is held."""

        def words(_pack: Pack, _event: FlatHeld, item: str) -> Words:
            return "房源已锁定", f"“{item}”的房源已为您保留，请按期签订租约。"

        await self._take(tx, events, words)

    async def on_flat_released(self, tx: AsyncConnection, events: Sequence[FlatReleased]) -> None:
        """A hold ended without a lease."""

        def words(_pack: Pack, event: FlatReleased, item: str) -> Words:
            why = "保留期已过" if event.reason == "expired" else "已放弃"
            return "房源已释放", f"“{item}”的房源{why}，可另行选房。"

        await self._take(tx, events, words)

    async def on_flat_leased(self, tx: AsyncConnection, events: Sequence[FlatLeased]) -> None:
        """A lease was signed."""

        def words(_pack: Pack, event: FlatLeased, item: str) -> Words:
            return "已签订租约", f"“{item}”租期自 {event.from_day} 至 {event.to_day}。"

        await self._take(tx, events, words)

    async def on_lease_ended(self, tx: AsyncConnection, events: Sequence[LeaseEnded]) -> None:
        """A lease came to its end."""

        def words(_pack: Pack, event: LeaseEnded, item: str) -> Words:
            how = "届满" if event.reason == "expired" else "提前终止"
            return "租期已止", f"“{item}”的租约已于 {event.ended_on} {how}。"

        await self._take(tx, events, words)

    async def _take(self, tx: AsyncConnection, events: Sequence[E], words: Callable[[Pack, E, str], Words]) -> None:
        """Tell a step of each event. Raises Early for applications not here (yet) and packs not known (yet)."""
        packs = self._packs.for_events(events)
        known = set((await tx.execute(_KNOWN, {"ids": [event.application for event in events]})).scalars())
        early = {e.id: cause(ApplicationReceived, e.key) for e in events if e.application not in known}
        if early:
            raise Early(early)
        items = [item for event in events if isinstance(item := getattr(event, "item", None), UUID)]
        codes = {row.id: row.code for row in await tx.execute(_ITEM_CODES, {"ids": items})} if items else {}
        steps = []
        for event in events:
            item = getattr(event, "item", None)
            title, detail = words(packs[event.policy], event, item_title(packs[event.policy], codes.get(item, "")))
            steps.append(Step(event.application, event.id, type(event).__name__, event.time, title, detail, item))
        await tell(tx, steps)


HANDLERS: Mapping[type[Event], Callable[..., Awaitable[None]]] = {
    DeptAssigned: Feedback.on_dept_assigned,
    DeptCompleted: Feedback.on_dept_completed,
    CaseSuspended: Feedback.on_case_suspended,
    CaseResumed: Feedback.on_case_resumed,
    PublicNoticeOpened: Feedback.on_notice_opened,
    PublicNoticeWithdrawn: Feedback.on_notice_withdrawn,
    ObjectionReceived: Feedback.on_objection_received,
    ObjectionConcluded: Feedback.on_objection_concluded,
    TalentCertified: Feedback.on_talent_certified,
    BenefitApproved: Feedback.on_benefit_approved,
    PayeeAccountChanged: Feedback.on_payee_account_changed,
    ApplicationClosed: Feedback.on_application_closed,
    WithdrawalIgnored: Feedback.on_withdrawal_ignored,
    PayoutOrdered: Feedback.on_payout_ordered,
    PayoutSent: Feedback.on_payout_sent,
    PayoutSettled: Feedback.on_payout_settled,
    PayoutBounced: Feedback.on_payout_bounced,
    PayoutCancelled: Feedback.on_payout_cancelled,
    InstalmentReviewed: Feedback.on_instalment_reviewed,
    FlatHeld: Feedback.on_flat_held,
    FlatReleased: Feedback.on_flat_released,
    FlatLeased: Feedback.on_flat_leased,
    LeaseEnded: Feedback.on_lease_ended,
}
"""What intake hears of the other services."""


def _instalment(pack: Pack, event: PayoutOrdered | PayoutSettled | InstalmentReviewed) -> str:
    return f"{benefit_title(pack, event.benefit)}第 {event.instalment} 期"


def _after_review(pack: Pack, event: InstalmentReviewed) -> str:
    """What comes of a review, with the sentence of each condition that decided."""
    if event.verdict == "pass":
        return f"{_instalment(pack, event)}复核符合，按期发放。"
    decided = {rule.id: rule for rule in pack.conditions if rule.id in event.rules}.values()
    told = (rule.failed if event.verdict == "fail" else rule.undetermined for rule in decided)
    return f"{_instalment(pack, event)}暂缓发放：{'；'.join(told)}。"
