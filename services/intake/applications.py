"""Applications: taken in, told their defects, accepted, transferred or not accepted; corrected, withdrawn, lapsed.

An application without defects is accepted in the transaction that receives it. One filed at a platform that is not the
affiliated one is transferred in the same transaction: it lives on as a successor with a case number of its own there,
materials and external references go with it, and the receipt stays good.

A case number is the pack's `case_prefix`, then as `identity.make_case_no` says.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid6 import uuid7

from libs.common.auth import Principal
from libs.common.calendar import end_of_day, local_date
from libs.common.crypto import Vault
from libs.common.errors import DomainError
from libs.common.events import (
    AcceptedItem,
    ApplicationNotAccepted,
    ApplicationWithdrawn,
)
from libs.common.identity import make_case_no
from libs.common.outbox import emit
from libs.common.packs import Packs
from libs.common.policy import Pack, PolicyError, platform_of
from libs.common.policy.model import ItemKind
from libs.common.ticker import Due, cancel, schedule
from services.intake import claims, employers, materials, refs
from services.intake.domain import TITLES, Known, State, answer_by, categories, examine, move, promises
from services.intake.filing import FiledPerson, Filing, read_correction, read_filing
from services.intake.materials import File
from services.intake.outcome import Case, Docket, Outcome, Parties, facts, identity_of, receipt_of, received, step_of
from services.intake.people import Enrolled, People
from services.intake.promises import await_materials
from services.intake.timeline import Step, tell
from services.intake.views import (
    Receipt,
    SuccessorView,
    as_json,
    defect_views,
    material_title,
)

LAPSE = "correction.lapse"
"""The kind of due work that ends an application whose correction was not answered; its key is the application's id."""

_NEXT_NUMBERS = text("""
    INSERT INTO case_counter (platform, day, last)
    SELECT platform, :day, 1 FROM unnest(CAST(:platforms AS text[])) AS r (platform)
    ON CONFLICT (platform, day) DO UPDATE SET last = case_counter.last + 1
    RETURNING platform, last
""")
_SAVE = text("""
    INSERT INTO application (
        id, case_no, state, channel, platform, treasury, client, filed_by, applicant, beneficiary, handler, employer,
        employer_kind, payee_account, sealed, defects, received_at, accepted_on, decided_on, answer_by, reason,
        successor, predecessor, policy_city, policy_version, policy_sha256)
    VALUES (
        :id, :case_no, :state, :channel, :platform, :treasury, :client, :filed_by, :applicant, :beneficiary, :handler,
        :employer, :employer_kind, :payee_account, :sealed, CAST(:defects AS jsonb), :received_at, :accepted_on,
        :decided_on, :answer_by, :reason, :successor, :predecessor, :policy_city, :policy_version, :policy_sha256)
    ON CONFLICT (id) DO UPDATE SET
        state = excluded.state, treasury = excluded.treasury, applicant = excluded.applicant,
        beneficiary = excluded.beneficiary, handler = excluded.handler, employer = excluded.employer,
        employer_kind = excluded.employer_kind, payee_account = excluded.payee_account, sealed = excluded.sealed,
        defects = excluded.defects, accepted_on = excluded.accepted_on, decided_on = excluded.decided_on,
        answer_by = excluded.answer_by, reason = excluded.reason, successor = excluded.successor,
        policy_city = excluded.policy_city, policy_version = excluded.policy_version,
        policy_sha256 = excluded.policy_sha256
""")
_SAVE_ITEMS = text("""
    INSERT INTO application_item (id, application, position, code, kind, category, certification)
    SELECT id, :application, n, code, kind, category, certification
      FROM unnest(CAST(:ids AS uuid[]), CAST(:codes AS text[]), CAST(:kinds AS text[]), CAST(:categories AS text[]),
                  CAST(:certifications AS text[]))
           WITH ORDINALITY AS r (id, code, kind, category, certification, n)
    ON CONFLICT (application, code) DO UPDATE SET
        position = excluded.position, category = excluded.category, certification = excluded.certification
    RETURNING id, code
""")
_DROP_ITEMS = text("""
    DELETE FROM application_item WHERE application = :application AND NOT code = ANY(CAST(:codes AS text[]))
""")
_EARLIER = text("""
    SELECT r.number, r.category
      FROM item_result AS r JOIN application AS a ON a.id = r.application
      JOIN person AS p ON p.ref = a.beneficiary
     WHERE r.number = ANY(CAST(:numbers AS text[])) AND COALESCE(p.merged_into, p.ref) = :person
       AND r.valid_to IS NOT NULL
""")
_END = text("UPDATE application SET state = :state, decided_on = :on, reason = :reason WHERE id = :id")
_ASK_WITHDRAWAL = text("UPDATE application SET withdrawal_asked_at = :now WHERE id = :id")
_IGNORED = text("SELECT detail FROM timeline WHERE application = :id AND code = 'WithdrawalIgnored' LIMIT 1")
_LOCK_UNANSWERED = text("""
    SELECT id, answer_by, policy_city, policy_version, policy_sha256 FROM application
     WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'correction' AND answer_by < :today
     ORDER BY id FOR NO KEY UPDATE
""")
_LAPSE = text("""
    UPDATE application SET state = 'lapsed', reason = 'lapsed', decided_on = :today WHERE id = ANY(CAST(:ids AS uuid[]))
""")


class CaseEnded(DomainError):
    """409: the case has come to its end, so that there is nothing to withdraw any more."""

    status, code, title = 409, "case-ended", "该申请已办理结束，不能撤回"
    detail = "该申请目前为“{state}”，撤回不再生效。如需放弃已获批的待遇，请联系人才办；对结果有异议的，请咨询受理平台。"


class WithdrawalAlreadyIgnored(DomainError):
    """409: a withdrawal was asked for before, and workflow has answered that it does not count."""

    status, code, title = 409, "withdrawal-ignored", "此前的撤回未生效，不能再次撤回"
    detail = "此前已申请撤回，办理环节的答复是：{told}"


class Desk:
    """The receiving desk: its operations take a transaction, and never commit."""

    def __init__(self, vault: Vault, packs: Packs) -> None:
        self.vault = vault
        self.people = People(vault)
        self.packs = packs

    # -- commands

    async def file(self, tx: AsyncConnection, raw: Mapping[str, Any], caller: Principal, now: datetime) -> Receipt:
        """Take a filing in. Raises InvalidRequest, FilingWrong, ExternalRefTaken; then nothing is stored."""
        pack, today = self.packs.current(), local_date(now)
        window = _window(pack, caller, today)
        filing = read_filing(raw, pack, today, window=window)
        case = await self._examine(tx, filing, caller, now=now)
        here = window or _filed_at(case)
        there = case.verdict.platform or here
        numbers = await _numbers(tx, pack, {here, there}, today)
        docket = Docket(uuid7(), numbers[here], filing.channel, here, caller.client, caller.subject, now)
        onward = _onward(docket, there, numbers[there]) if there != here else None
        receipt = await self._settle(tx, docket, case, State.RECEIVED, onward=onward)
        await refs.add(tx, filing.external_refs, (onward or docket).id, caller)
        return receipt

    async def correct(
        self,
        tx: AsyncConnection,
        row: Any,
        raw: Mapping[str, Any],
        caller: Principal,
        *,
        now: datetime,
        quiet: bool = False,
    ) -> Receipt:
        """Put a correction on a filing (`row` is locked) and examine everything again, uploads included.

        `quiet`: what is still missing and was told already is not told again. Raises NotPossibleNow, InvalidRequest,
        FilingWrong.
        """
        move(State(row.state), "request_correction")
        filed = json.loads(self.vault.open(row.sealed, _context(row.id)))
        pack, today = self.packs.current(), local_date(now)
        filing = read_correction(filed, raw, pack, today)
        uploaded = await materials.uploaded(tx, row.id)
        case = await self._examine(tx, filing, caller, now=now, uploaded=uploaded)
        docket = _docket(row)
        await cancel(tx, LAPSE, [str(row.id)])
        await claims.drop(tx, row.id)
        await tx.execute(_DROP_ITEMS, {"application": row.id, "codes": [item.code for item in filing.items]})
        await materials.drop_stated(tx, row.id)
        there = case.verdict.platform or docket.platform
        if there == docket.platform:
            told = [defect["title"] for defect in row.defects] if quiet else []
            return await self._settle(tx, docket, case, State.CORRECTION, deadline=row.answer_by, told=told)
        onward = _onward(docket, there, (await _numbers(tx, pack, {there}, today))[there])
        receipt = await self._settle(tx, docket, case, State.CORRECTION, onward=onward)
        await materials.copy_uploads(tx, docket.id, onward.id)
        await refs.move(tx, docket.id, onward.id)
        return receipt

    async def upload(
        self, tx: AsyncConnection, row: Any, code: str, file: File, caller: Principal, *, now: datetime
    ) -> UUID:
        """Add a file (`row` is locked); gives the material's id. Where that mends the last defect of a correction the
        application is accepted at once; what is still missing was told already and is not told again."""  # fmt: skip
        ref = await materials.add_upload(tx, self.vault, row.id, code, file)
        title = material_title(self.packs.get(identity_of(row)), code)
        await tell(tx, [Step(row.id, ref, "MaterialAdded", now, "材料已上传", f"已收到：{title}。")])
        if row.state == State.CORRECTION:
            await self.correct(tx, row, {}, caller, now=now, quiet=True)
        return ref

    async def withdraw(self, tx: AsyncConnection, row: Any, now: datetime) -> None:
        """Withdraw (`row` is locked). After acceptance workflow decides whether it still counts, so only the wish is
        recorded and told, once. Raises NotPossibleNow, CaseEnded, WithdrawalAlreadyIgnored."""  # fmt: skip
        state = move(State(row.state), "withdraw")
        if row.closed_on is not None and not (row.withdrawal_asked_at is not None and row.shown == "withdrawn"):
            raise CaseEnded(state=TITLES[row.shown])
        if row.withdrawal_asked_at is not None:
            told = (await tx.execute(_IGNORED, {"id": row.id})).scalar()
            if told is not None:
                raise WithdrawalAlreadyIgnored(told=told)
            return  # withdrawn, or workflow has not answered yet: the same result again
        event = ApplicationWithdrawn(policy=identity_of(row), application=row.id, withdrawn_at=now)
        if state is State.ACCEPTED:
            await tx.execute(_ASK_WITHDRAWAL, {"id": row.id, "now": now})
            step = step_of(event, now, "已申请撤回", "已受理的申请能否撤回，以办理进度为准。")
        else:
            await cancel(tx, LAPSE, [str(row.id)])
            await tx.execute(_END, {"id": row.id, "state": state.value, "on": local_date(now), "reason": None})
            step = step_of(event, now, "已撤回")
        await emit(tx, event)
        await tell(tx, [step])

    async def on_lapse(self, tx: AsyncConnection, dues: Sequence[Due]) -> None:
        """Due work: applications whose correction was not answered by the last day end (逾期终止)."""
        now = max(due.at for due in dues)
        today = local_date(now)
        found = {"ids": [UUID(due.key) for due in dues], "today": today}
        rows = (await tx.execute(_LOCK_UNANSWERED, found)).all()
        await tx.execute(_LAPSE, {"ids": [row.id for row in rows], "today": today})
        events = [
            ApplicationNotAccepted(policy=identity_of(row), application=row.id, reason="lapsed", decided_on=today)
            for row in rows
        ]
        await emit(tx, *events)
        words = [f"补正截止日期 {row.answer_by} 已过，未收到补正。" for row in rows]
        await tell(tx, [step_of(e, now, "逾期终止", word) for e, word in zip(events, words, strict=True)])

    # -- examination

    async def _examine(
        self,
        tx: AsyncConnection,
        filing: Filing,
        caller: Principal,
        *,
        now: datetime,
        uploaded: frozenset[str] = frozenset(),
    ) -> Case:
        pack, today = self.packs.current(), local_date(now)
        seen_by = caller if filing.channel == "on_site" and "intake:assist" in caller.scopes else None
        places = _people(filing)
        enrolled = await self.people.enrol(tx, list(places.values()), seen_by=seen_by)
        people = dict(zip(places, enrolled, strict=True))
        parties = await self._parties(tx, filing, people, today)
        known = Known(
            affiliations=await employers.affiliations(tx, parties.employer) if parties.employer else (),
            uploaded=uploaded,
            categories=await _earlier(tx, filing, parties.beneficiary),
            misnamed=[place for place, one in people.items() if one.misnamed],
            mixed=[place for place, one in people.items() if one.mixed],
            doubtful=[f"{place}/documents/{n}" for place, one in people.items() for n in one.doubtful],
            unsure=not people["/beneficiary"].certain,
        )
        if filing.employer is not None and parties.employer is not None:
            await employers.state_affiliations(tx, parties.employer, filing.employer)
        verdict = examine(pack, filing, known, today)
        return Case(pack, filing, [pack.item(it.code, today) for it in filing.items], parties, known, verdict, now)

    async def _parties(
        self, tx: AsyncConnection, filing: Filing, people: Mapping[str, Enrolled], today: date
    ) -> Parties:
        employer = await employers.enrol(tx, filing.employer, today) if filing.employer else None
        beneficiary = people["/beneficiary"]
        links = [people[f"/beneficiary/links/{n}/person"].ref for n in range(len(filing.beneficiary.links))]
        account = None
        # Who files under another's number must not add to that person's record.
        if beneficiary.certain:
            await self.people.link(tx, beneficiary.ref, filing.beneficiary.links, links)
            if filing.payee_account is not None:
                account = await self.people.add_account(tx, beneficiary.ref, filing.payee_account)
        applicant = people.get("/applicant/person", beneficiary) if filing.applicant.kind == "person" else None
        handler = people.get("/handler/person")
        return Parties(
            applicant=applicant.ref if applicant else None,
            beneficiary=beneficiary.ref,
            handler=handler.ref if handler else None,
            employer=employer,
            payee_account=account,
        )

    # -- settlement

    async def _settle(
        self,
        tx: AsyncConnection,
        docket: Docket,
        case: Case,
        state: State,
        *,
        deadline: date | None = None,
        told: Collection[str] = (),
        onward: Docket | None = None,
    ) -> Receipt:
        """Decide, store, emit and tell. `onward`: it belongs to another platform and lives on there under this docket.
        `deadline` and `told`: the last day and the titles of the defects that were told already."""  # fmt: skip
        if onward is None:
            outcome = await _decide(tx, docket, case, state, deadline)
            if told and outcome.state is State.CORRECTION:
                outcome = replace(outcome, known={defect.title for defect in outcome.defects} <= set(told))
            return await self._record(tx, docket, case, outcome, state)
        outcome = await _decide(tx, onward, case, State.RECEIVED, None)
        successor = SuccessorView(id=onward.id, case_no=onward.case_no, platform=onward.platform, state=outcome.state)
        transferred = Outcome(move(state, "transfer"), successor=successor)
        receipt = await self._record(tx, docket, case, transferred, state)
        await self._record(tx, onward, case, outcome, State.RECEIVED)
        return receipt

    async def _record(
        self, tx: AsyncConnection, docket: Docket, case: Case, outcome: Outcome, before: State
    ) -> Receipt:
        await tx.execute(_SAVE, self._row(docket, case, outcome))
        items = await _save_items(tx, docket, case)
        await materials.add_stated(tx, docket.id, case.filing.materials, case.known.uploaded)
        if outcome.state is State.CORRECTION and outcome.answer_by is not None:
            await schedule(tx, [Due(LAPSE, str(docket.id), end_of_day(outcome.answer_by))])
        if outcome.state is State.ACCEPTED:
            await await_materials(tx, docket.id, promises(case.filing, case.items, case.known.uploaded))
        told = [] if outcome.known else facts(docket, case, outcome, items)
        if before is State.RECEIVED:
            told = [received(docket, case, items), *told]
        await emit(tx, *(event for event, _ in told))
        await tell(tx, [step for _, step in told])
        return receipt_of(docket, case, outcome, items)

    def _row(self, docket: Docket, case: Case, outcome: Outcome) -> dict[str, Any]:
        stated = case.filing.model_dump(mode="json", by_alias=True, exclude_unset=True)
        sealed = self.vault.seal(json.dumps(stated, ensure_ascii=False).encode(), _context(docket.id))
        employer, identity = case.filing.employer, case.pack.identity
        ended = outcome.state in {State.NOT_ACCEPTED, State.TRANSFERRED}
        return {
            **asdict(docket),
            **asdict(case.parties),
            "state": outcome.state.value,
            "treasury": case.verdict.treasury,
            "employer_kind": employer.kind.value if employer else None,
            "sealed": sealed,
            "defects": json.dumps(as_json(defect_views(outcome.defects)), ensure_ascii=False),
            "accepted_on": case.today if outcome.state is State.ACCEPTED else None,
            "decided_on": case.today if ended else None,
            "answer_by": outcome.answer_by,
            "reason": outcome.reason,
            "successor": outcome.successor.id if outcome.successor else None,
            "policy_city": identity.city,
            "policy_version": identity.version,
            "policy_sha256": identity.sha256,
        }


# -- examination


def _people(filing: Filing) -> dict[str, FiledPerson]:
    """Everybody whom a filing names, by place."""
    people: dict[str, FiledPerson] = {"/beneficiary": filing.beneficiary}
    if filing.applicant.person is not None and filing.applicant.kind == "person":
        people["/applicant/person"] = filing.applicant.person
    if filing.handler is not None:
        people["/handler/person"] = filing.handler.person
    links = filing.beneficiary.links
    return people | {f"/beneficiary/links/{n}/person": link.person for n, link in enumerate(links)}


async def _earlier(tx: AsyncConnection, filing: Filing, beneficiary: UUID) -> dict[str, str]:
    """The categories of the beneficiary's certifications that the filing names, where intake has heard of them."""
    numbers = [item.certification for item in filing.items if item.certification is not None]
    if not numbers:
        return {}
    rows = await tx.execute(_EARLIER, {"numbers": numbers, "person": beneficiary})
    return {row.number: row.category for row in rows}


def _window(pack: Pack, caller: Principal, today: date) -> str | None:
    """The platform of a clerk's window."""
    at_window = caller.role == "window_clerk" and caller.treasury is not None
    return _platform(pack, caller.treasury or "", today) if at_window else None


def _filed_at(case: Case) -> str:
    """The platform that takes an on-line filing in: the one named, the affiliated one, else the city's."""
    pack, today = case.pack, case.today
    return case.filing.platform or case.verdict.platform or _platform(pack, pack.city_treasury(today).code, today)


def _platform(pack: Pack, treasury: str, today: date) -> str:
    try:
        return platform_of(pack, treasury, today).code
    except PolicyError:
        return treasury


async def _numbers(tx: AsyncConnection, pack: Pack, platforms: set[str], today: date) -> dict[str, str]:
    """A case number at each platform. The counters are taken in order, so that two transfers cannot wait in a ring."""
    rows = await tx.execute(_NEXT_NUMBERS, {"platforms": sorted(platforms), "day": today})
    return {row.platform: make_case_no(pack.case_prefix, row.platform, today, row.last) for row in rows}


def _onward(docket: Docket, platform: str, case_no: str) -> Docket:
    return replace(docket, id=uuid7(), case_no=case_no, platform=platform, predecessor=docket.id)


# -- settlement


async def _decide(tx: AsyncConnection, docket: Docket, case: Case, state: State, deadline: date | None) -> Outcome:
    reason = case.verdict.reason
    if reason is None and not await _claimed(tx, docket, case):
        reason = "duplicate"
    if reason is not None:
        return Outcome(move(state, "not_accept"), reason=reason)
    if case.verdict.defects:
        last = deadline or answer_by(case.pack, case.today)
        return Outcome(move(state, "request_correction"), defects=case.verdict.defects, answer_by=last)
    return Outcome(move(state, "accept"))


async def _claimed(tx: AsyncConnection, docket: Docket, case: Case) -> bool:
    """Claim what the filing asks for, for the beneficiary; false where another application holds any of it.

    While it is in doubt who the beneficiary is nothing is claimed: the one whose number was used would be turned away.
    """
    if case.known.unsure:
        return True
    codes = [item.code for item in case.items if item.kind in claims.KINDS]
    return await claims.take(tx, case.parties.beneficiary, docket.id, codes, case.today)


async def _save_items(tx: AsyncConnection, docket: Docket, case: Case) -> list[AcceptedItem]:
    found = categories(case.filing, case.items, case.known)
    stated = {
        "application": docket.id,
        "ids": [uuid7() for _ in case.items],
        "codes": [item.code for item in case.items],
        "kinds": [item.kind.value for item in case.items],
        "categories": found,
        "certifications": [filed.certification for filed in case.filing.items],
    }
    ids = {row.code: row.id for row in await tx.execute(_SAVE_ITEMS, stated)}
    return [
        AcceptedItem(
            item=ids[item.code],
            code=item.code,
            kind=item.kind.value,
            category=category,
            benefit=item.code if item.kind is ItemKind.BENEFIT else None,
            certification=filed.certification,
        )
        for filed, item, category in zip(case.filing.items, case.items, found, strict=True)
    ]


# -- rows


def _docket(row: Any) -> Docket:
    return Docket(
        row.id, row.case_no, row.channel, row.platform, row.client, row.filed_by, row.received_at, row.predecessor
    )


def _context(of: UUID) -> bytes:
    return f"application:{of}".encode()
