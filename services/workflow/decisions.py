"""Decisions by two officers: one proposes, another confirms or rejects; what stands against a grant is told first."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.calendar import local_date
from libs.common.errors import DomainError
from libs.common.events import Event
from libs.common.outbox import emit
from libs.common.packs import Packs
from libs.common.policy import PolicyError, categories_of, certifies
from services.workflow.assignment import cancel_tasks
from services.workflow.certification import Grant, approve, certify, claim
from services.workflow.closing import close_finished
from services.workflow.domain import (
    CategoryNotOfItem,
    CategoryUnknown,
    CertificationUndecided,
    DecisionObstructed,
    FourEyesRequired,
    check_proposal,
)
from services.workflow.dossiers import Choice, Dossier, held, read
from services.workflow.history import Entry, record
from services.workflow.notices import check_published
from services.workflow.publication import Published, open_notices, withdraw_notice

_PROPOSE = text("""
    UPDATE item SET state = 'proposed', verdict = r.verdict, verdict_category = r.category, verdict_reason = r.reason,
                    proposed_by = :by, proposed_at = :now, version = version + 1
      FROM unnest(CAST(:items AS uuid[]), CAST(:verdicts AS text[]), CAST(:categories AS text[]),
                  CAST(:reasons AS text[])) AS r (item, verdict, category, reason)
     WHERE item.id = r.item
""")
_CONFIRM = text("""
    UPDATE item SET state = CASE verdict WHEN 'refuse' THEN 'refused' ELSE 'done' END, confirmed_by = :by,
                    decided_on = :today, version = version + 1,
                    reason = CASE verdict WHEN 'refuse' THEN verdict_reason END
     WHERE id = ANY(CAST(:items AS uuid[]))
""")
_REJECT = text("""
    UPDATE item SET state = 'awaiting_decision', verdict = NULL, verdict_category = NULL, verdict_reason = NULL,
                    proposed_by = NULL, proposed_at = NULL, version = version + 1
     WHERE id = :item
""")
_REFUSE_DEPENDENT = text("""
    UPDATE item SET state = 'refused', decided_on = :today, version = version + 1,
                    reason = '所依据的人才认定未通过：' || (
                        SELECT string_agg(s.reason, '；' ORDER BY s.position) FROM item AS s
                         WHERE s.application = item.application AND s.kind = 'certification')
     WHERE application = ANY(CAST(:applications AS uuid[])) AND kind = 'benefit' AND certification IS NULL
       AND state IN ('in_progress', 'awaiting_decision', 'proposed')
       AND NOT EXISTS (SELECT 1 FROM item AS s WHERE s.application = item.application AND s.kind = 'certification'
                          AND s.state <> 'refused')
    RETURNING id, application
""")


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an officer proposes for an item; `etag` is that of the item as the officer read it."""

    item: UUID
    etag: str | None
    verdict: str
    category: str | None = None
    reason: str | None = None


async def propose(
    tx: AsyncConnection, packs: Packs, lines: Sequence[Proposal], *, caller: Principal, now: datetime
) -> dict[UUID, DomainError]:
    """Propose decisions (each item named once); gives the refusal of each bad line, the others take effect.

    A refusal is NotFound, PreconditionFailed or -Required, ItemNotAwaiting, VerdictUnknown, CategoryUnknown,
    CategoryNotOfItem, ReasonMissing, CertificationUndecided or DecisionObstructed.
    """
    dossiers = await held(tx, packs, [line.item for line in lines], caller)
    refused: dict[UUID, DomainError] = {}
    good: list[tuple[Dossier, Proposal, str | None]] = []
    for line in lines:
        try:
            dossier = read(dossiers, line.item, line.etag, "propose")
            good.append((dossier, line, _proposed_category(dossier, line)))
        except DomainError as error:
            refused[line.item] = error
    if good:
        parameters = {
            "by": caller.subject,
            "now": now,
            "items": [line.item for _, line, _ in good],
            "verdicts": [line.verdict for _, line, _ in good],
            "categories": [category for _, _, category in good],
            "reasons": [line.reason for _, line, _ in good],
        }
        await tx.execute(_PROPOSE, parameters)
        await record(tx, [_proposal_entry(d, line, category, caller.subject) for d, line, category in good], at=now)
        published = [
            Published(d.item, d.case, category, now, caller.subject, d.notice_rule)
            for d, _, category in good
            if category is not None and d.notice_rule is not None and d.notice_rule.required
        ]
        await open_notices(tx, published, by=caller.subject, now=now)
    return refused


def _proposed_category(dossier: Dossier, line: Proposal) -> str | None:
    """Check a proposal; gives the category that it grants, if it grants one."""
    kind = dossier.item.kind
    obstacles = dossier.obstacles()
    check_proposal(kind, verdict=line.verdict, reason=line.reason, obstacles=obstacles, ready=dossier.ready)
    if line.verdict == "refuse":
        return None
    if kind == "benefit":
        if line.category is not None or dossier.support is None:
            raise CategoryUnknown
        return dossier.support.category
    return _certifiable(dossier, line.category or dossier.item.category or "")


def _certifiable(dossier: Dossier, category: str) -> str:
    """The category, if it is one of those that the item certifies. Raises CategoryUnknown, CategoryNotOfItem."""
    pack, item, on = dossier.pack, dossier.item.code, dossier.case.accepted_on
    try:
        if certifies(pack, item=item, category=category, on=on):
            return category
    except PolicyError:
        raise CategoryUnknown from None
    titles = "、".join(f"{each.title}（{each.code}）" for each in categories_of(pack, item=item, on=on))
    raise CategoryNotOfItem(item=pack.item(item, on).title, categories=titles)


def _proposal_entry(dossier: Dossier, line: Proposal, category: str | None, by: str) -> Entry:
    detail = {"verdict": line.verdict, "category": category, "reason": line.reason}
    told = {key: value for key, value in detail.items() if value is not None}
    return Entry(dossier.case.application, "proposed", by=by, item=line.item, detail=told)


async def confirm(
    tx: AsyncConnection, packs: Packs, lines: Sequence[Choice], *, caller: Principal, now: datetime
) -> dict[UUID, DomainError]:
    """Confirm proposals of other officers (each item named once): certify, approve or refuse, and go on with the cases.

    Gives the refusal of each bad line: NotFound, PreconditionFailed or -Required, ItemNotAwaiting, FourEyesRequired,
    CertificationUndecided, DecisionObstructed, NoticeRequired, NoticeRunning, ObjectionsOpen.
    """
    dossiers = await held(tx, packs, [line.item for line in lines], caller)
    refused: dict[UUID, DomainError] = {}
    good: list[Dossier] = []
    for line in lines:
        try:
            dossier = read(dossiers, line.item, line.etag, "confirm")
            _check_confirmation(dossier, caller, local_date(now))
            good.append(dossier)
        except DomainError as error:
            refused[line.item] = error
    claimed = await claim(tx, [_grant(each) for each in good if each.item.verdict == "approve"])
    rivals = [each for each in good if each.item.verdict == "approve" and each.item.id not in claimed]
    for each in rivals:
        refused[each.item.id] = DecisionObstructed(reasons="该受益人已获批此项待遇")
    good = [each for each in good if each.item.id not in refused]
    if good:
        await _confirm(tx, good, by=caller.subject, now=now)
    return refused


def _check_confirmation(dossier: Dossier, caller: Principal, today: date) -> None:
    if dossier.item.proposed_by == caller.subject:
        raise FourEyesRequired
    if dossier.item.verdict == "refuse":
        return
    if not dossier.ready:
        raise CertificationUndecided
    obstacles = dossier.obstacles()  # again: facts may have changed since the proposal
    if obstacles:
        raise DecisionObstructed(reasons="；".join(each.title for each in obstacles))
    check_published(dossier.notice_rule, dossier.notice, dossier.notices, today)


async def _confirm(tx: AsyncConnection, good: Sequence[Dossier], *, by: str, now: datetime) -> None:
    today = local_date(now)
    out: list[Event] = []
    out += await certify(tx, _grants(good, "certify"), by=by, decided_on=today)
    out += await approve(tx, _grants(good, "approve"), by=by, decided_on=today)
    await tx.execute(_CONFIRM, {"items": [each.item.id for each in good], "by": by, "today": today})
    entries = [
        Entry(each.case.application, "confirmed", by=by, item=each.item.id, detail={"verdict": each.item.verdict})
        for each in good
    ]
    await record(tx, entries, at=now)
    cases = {each.case.application: each.case for each in good}
    await _refuse_dependents(tx, list(cases), now=now)
    await emit(tx, *out, *await close_finished(tx, cases, now=now))


def _grants(dossiers: Iterable[Dossier], verdict: str) -> list[Grant]:
    return [_grant(each) for each in dossiers if each.item.verdict == verdict]


def _grant(dossier: Dossier) -> Grant:
    number = dossier.support.number if dossier.support else None
    return Grant(dossier.item, dossier.case, dossier.pack, dossier.item.verdict_category, number)


async def _refuse_dependents(tx: AsyncConnection, applications: Sequence[UUID], *, now: datetime) -> None:
    """Refuse the benefits of cases whose certifications were all refused, and cancel what is open of their tasks."""
    parameters = {"applications": list(applications), "today": local_date(now)}
    fallen = (await tx.execute(_REFUSE_DEPENDENT, parameters)).all()
    await cancel_tasks(tx, [row.id for row in fallen])
    entries = [Entry(row.application, "certification_refused", item=row.id) for row in fallen]
    await record(tx, entries, at=now)


async def reject(
    tx: AsyncConnection, packs: Packs, line: Choice, *, reason: str, caller: Principal, now: datetime
) -> None:
    """Send another officer's proposal back.

    Raises NotFound, PreconditionFailed or -Required, ItemNotAwaiting, FourEyesRequired.
    """
    dossiers = await held(tx, packs, [line.item], caller)
    dossier = read(dossiers, line.item, line.etag, "reject")
    if dossier.item.proposed_by == caller.subject:
        raise FourEyesRequired
    await tx.execute(_REJECT, {"item": line.item})
    detail = {"verdict": dossier.item.verdict, "proposed_by": dossier.item.proposed_by, "reason": reason}
    entry = Entry(dossier.case.application, "rejected", by=caller.subject, item=line.item, detail=detail)
    await record(tx, [entry], at=now)
    if dossier.notice is not None:
        await withdraw_notice(tx, dossier, dossier.notice, by=caller.subject, now=now)
