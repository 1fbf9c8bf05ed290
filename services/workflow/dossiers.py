"""Dossiers: what the decision of an item rests on, for the officers who make it and for those who read it."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import Row, Select, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.errors import NotFound
from libs.common.packs import Packs
from libs.common.paging import Page, PageRequest, check_version, etag, page_of, read_after
from libs.common.policy import Pack, PolicyError, exclusion
from libs.common.policy.model import PublicNotice
from services.workflow.access import among, locked, pack_of, visible
from services.workflow.domain import (
    ENDED,
    VERDICTS,
    ItemState,
    Obstacle,
    Support,
    benefit_obstacles,
    failed_tasks,
    item_state_after,
    upheld_objections,
)
from services.workflow.models import approval, cases, certification, item, task
from services.workflow.notices import Notice, NoticeView, notice_view, notices_of


@dataclass(frozen=True, slots=True)
class Dossier:
    """What is known of an item when it is decided."""

    item: Row[Any]
    case: Row[Any]
    pack: Pack
    tasks: Sequence[Row[Any]]
    support: Support | None
    ready: bool
    approved: str | None
    notices: Sequence[Notice]

    @property
    def notice(self) -> Notice | None:
        """The public notice of the proposal in hand, or of the one that was confirmed."""
        return next((each for each in self.notices if each.proposed_at == self.item.proposed_at), None)

    @property
    def notice_rule(self) -> PublicNotice | None:
        """What the policy of the day of acceptance says of a public notice of this certification, if anything."""
        if self.item.kind != "certification":
            return None
        return self.pack.find_rule(PublicNotice, self.item.code, on=self.case.accepted_on)

    def obstacles(self) -> list[Obstacle]:
        """The facts that stand against certifying or approving."""
        found = failed_tasks([(each.title, each.reason) for each in self.tasks if each.result == "failed"])
        found += upheld_objections([finding for notice in self.notices for finding in notice.findings])
        if self.item.kind != "benefit" or not self.ready:
            return found
        return found + benefit_obstacles(
            number=self.item.certification,
            support=self.support,
            accepted_on=self.case.accepted_on,
            excluded=self._excluded(),
            approved=self.approved,
        )

    @property
    def may_publish(self) -> bool:
        """Whether the proposal in hand can be put on public notice."""
        proposed = (self.item.state, self.item.verdict) == (ItemState.PROPOSED, "certify")
        return proposed and self.notice is None and self.notice_rule is not None

    def _excluded(self) -> str | None:
        if self.support is None:
            return None
        benefit, category, on = self.item.benefit, self.support.category, self.case.accepted_on
        try:
            rule = exclusion(self.pack, benefit=benefit, category=category, on=on)
        except PolicyError:  # certified under an earlier policy
            return f"认定的类别 {category} 不在受理当日有效的政策范围内"
        if rule is None:
            return None
        titles = self.pack.category(category, on).title, self.pack.benefit(benefit, on).title
        return f"“{titles[0]}”不享受{titles[1]}（{rule.article}）"


@dataclass(frozen=True, slots=True)
class Choice:
    """An item that an officer acts on; `etag` is that of the item as the officer read it."""

    item: UUID
    etag: str | None


class ResultFact(BaseModel):
    """The result of one task, as the officer reads it."""

    task: UUID
    department: str
    treasury: str
    title: str
    state: str
    result: str | None
    reason: str | None
    facts: dict[str, Any] | None
    completed_on: date | None


class ObstacleView(BaseModel):
    """A fact that stands against a positive decision."""

    code: str
    title: str


class SupportView(BaseModel):
    """The certification that a benefit relies on."""

    number: str
    category: str
    valid_to: date


class ProposalView(BaseModel):
    """What was proposed, waiting for a second officer."""

    verdict: str
    category: str | None
    reason: str | None
    by: str
    at: datetime


class DecisionView(BaseModel):
    """One item with everything that its decision rests on."""

    item: UUID
    etag: str = Field(description="单项操作填入 If-Match，批量操作填入该行的 etag")
    application: UUID
    case_no: str
    treasury: str
    code: str
    title: str
    kind: str
    state: str
    reason: str | None
    category: str | None = Field(description="申报的人才类别")
    benefit: str | None
    beneficiary: UUID
    accepted_on: date
    ready: bool = Field(description="同一申请的人才认定是否已有决定；认定事项恒为是")
    certification: SupportView | None
    tasks: list[ResultFact]
    obstacles: list[ObstacleView] = Field(description="不为空时只能不予认定或不予批准")
    verdicts: list[str] = Field(description="可提出的结论；不在待提出阶段时为空")
    proposal: ProposalView | None
    may_publish: bool = Field(description="政策规定须公示或可以公示，且该决定尚未公示")
    notice: NoticeView | None = Field(description="所提决定的公示；没有公示的为空")
    earlier_notices: list[NoticeView] = Field(description="此前所提、已退回的决定的公示及其异议")


# -- what they read


async def list_decisions(
    tx: AsyncConnection, packs: Packs, caller: Principal, page: PageRequest, *, state: ItemState | None
) -> Page[DecisionView]:
    """Items that wait for a proposal or a confirmation, also those whose public notice still runs; the benefits of an
    undecided certification filed with them are left out."""
    states = [state] if state else [ItemState.AWAITING_DECISION, ItemState.PROPOSED]
    sibling = item.alias("sibling")
    undecided = exists(
        select(1).where(
            sibling.c.application == item.c.application,
            sibling.c.kind == "certification",
            sibling.c.state.not_in(ENDED),
        )
    )
    ready = or_(item.c.kind == "certification", item.c.certification.is_not(None), ~undecided)
    query = (
        visible(items_query(), caller).where(item.c.state.in_(states), ready).order_by(item.c.id).limit(page.limit + 1)
    )
    if after := read_after(page, UUID):
        query = query.where(item.c.id > after[0])
    found = (await tx.execute(query)).all()
    shown = [_view(each, caller) for each in await dossiers_of(tx, packs, found)]
    return page_of(shown, page, lambda view: (str(view.item),))


async def decision(tx: AsyncConnection, packs: Packs, item_id: UUID, caller: Principal) -> DecisionView:
    """One item with what its decision rests on. Raises NotFound."""
    found = (await tx.execute(visible(items_query().where(item.c.id == item_id), caller))).all()
    if not found:
        raise NotFound
    return _view((await dossiers_of(tx, packs, found))[0], caller)


def _view(dossier: Dossier, caller: Principal) -> DecisionView:
    row, case = dossier.item, dossier.case
    obstacles = dossier.obstacles() if row.state in {ItemState.AWAITING_DECISION, ItemState.PROPOSED} else []
    verdicts = VERDICTS[row.kind] if row.state == ItemState.AWAITING_DECISION else ()
    proposal = None
    if row.state == ItemState.PROPOSED:
        proposal = ProposalView(
            verdict=row.verdict,
            category=row.verdict_category,
            reason=row.verdict_reason,
            by=row.proposed_by,
            at=row.proposed_at,
        )
    support = dossier.support
    noticed, whole = dossier.notice, _judges(caller)
    return DecisionView(
        item=row.id,
        etag=etag(row.version),
        application=row.application,
        case_no=case.case_no,
        treasury=case.treasury,
        code=row.code,
        title=dossier.pack.item(row.code, case.accepted_on).title,
        kind=row.kind,
        state=row.state,
        reason=row.reason,
        category=row.category,
        benefit=row.benefit,
        beneficiary=case.beneficiary,
        accepted_on=case.accepted_on,
        ready=dossier.ready,
        certification=SupportView.model_validate(support, from_attributes=True) if support else None,
        tasks=[_fact(each) for each in dossier.tasks],
        obstacles=[ObstacleView(code=each.code, title=each.title) for each in obstacles],
        verdicts=[each for each in verdicts if each == "refuse" or (dossier.ready and not obstacles)],
        proposal=proposal,
        may_publish=dossier.may_publish,
        notice=notice_view(noticed, whole=whole) if noticed else None,
        earlier_notices=[notice_view(each, whole=whole) for each in dossier.notices if each is not noticed],
    )


def _judges(caller: Principal) -> bool:
    """Whether the caller is one of those who decide, or who watch them: what was objected may name who objected."""
    return caller.sees_everything or "workflow:decide" in caller.scopes


def _fact(row: Row[Any]) -> ResultFact:
    return ResultFact(
        task=row.id,
        department=row.department,
        treasury=row.treasury,
        title=row.title,
        state=row.state,
        result=row.result,
        reason=row.reason,
        facts=row.facts,
        completed_on=row.completed_on,
    )


# -- what is decided on


async def held(tx: AsyncConnection, packs: Packs, items: Collection[UUID], caller: Principal) -> Mapping[UUID, Dossier]:
    """The dossiers of those items that the caller may see, read under the locks of their cases."""
    seen = {
        row.id: row.application
        for row in await tx.execute(visible(items_query().where(among(item.c.id, items)), caller))
    }
    await locked(tx, seen.values())
    rows = (await tx.execute(select(item).where(among(item.c.id, seen.keys())))).all()
    return {each.item.id: each for each in await dossiers_of(tx, packs, rows)}


def read(dossiers: Mapping[UUID, Dossier], item_id: UUID, given: str | None, action: str) -> Dossier:
    """The dossier of an item in the version and the state that the officer acts on.

    Raises NotFound, PreconditionFailed or -Required, ItemNotAwaiting.
    """
    dossier = dossiers.get(item_id)
    if dossier is None:
        raise NotFound
    check_version(given, dossier.item.version)
    item_state_after(ItemState(dossier.item.state), action)
    return dossier


# -- what a decision rests on


def items_query() -> Select[Any]:
    """Items with their cases, for `visible`."""
    return select(item).join(cases, cases.c.application == item.c.application)


async def dossiers_of(tx: AsyncConnection, packs: Packs, rows: Sequence[Row[Any]]) -> list[Dossier]:
    """Dossiers of rows of `item`, in their order: seven statements, however many."""
    applications = {row.application for row in rows}
    held = {
        row.application: row for row in await tx.execute(select(cases).where(among(cases.c.application, applications)))
    }
    results: dict[UUID, list[Row[Any]]] = defaultdict(list)
    for row in await tx.execute(
        select(task).where(among(task.c.item, [row.id for row in rows])).order_by(task.c.stage, task.c.id)
    ):
        results[row.item].append(row)
    certificates = await _certificates(tx, rows, applications)
    undecided = await _undecided(tx, applications)
    approved = await _approved(tx, {case.beneficiary for case in held.values()})
    notices = await notices_of(tx, [row.id for row in rows if row.kind == "certification"])
    dossiers = []
    for row in rows:
        case = held[row.application]
        relies_on = row.certification or row.application
        own = approved.get((case.beneficiary, row.benefit)) if row.state not in ENDED else None
        dossiers.append(
            Dossier(
                item=row,
                case=case,
                pack=pack_of(packs, case),
                tasks=results[row.id],
                support=_support(certificates.get(relies_on)) if row.kind == "benefit" else None,
                ready=row.kind != "benefit" or row.certification is not None or row.application not in undecided,
                approved=own,
                notices=notices.get(row.id, ()),
            )
        )
    return dossiers


async def _certificates(
    tx: AsyncConnection, rows: Sequence[Row[Any]], applications: Collection[UUID]
) -> Mapping[UUID | str, Row[Any]]:
    """Certifications by number, and the first of each application by the application."""
    numbers = [row.certification for row in rows if row.certification]
    query = (
        select(certification)
        .where(or_(among(certification.c.application, applications), certification.c.number.in_(numbers)))
        .order_by(certification.c.id.desc())
    )
    found: dict[UUID | str, Row[Any]] = {}
    for row in await tx.execute(query):
        found[row.number] = found[row.application] = row
    return found


async def _undecided(tx: AsyncConnection, applications: Collection[UUID]) -> set[UUID]:
    query = select(item.c.application).where(
        among(item.c.application, applications), item.c.kind == "certification", item.c.state.not_in(ENDED)
    )
    return set((await tx.execute(query)).scalars())


async def _approved(tx: AsyncConnection, persons: Collection[UUID]) -> Mapping[tuple[UUID, str], str]:
    query = select(approval).where(among(approval.c.beneficiary, persons))
    return {(row.beneficiary, row.benefit): row.number for row in await tx.execute(query)}


def _support(row: Row[Any] | None) -> Support | None:
    return Support(row.number, row.category, row.valid_to) if row else None
