"""Settlement of filings: decided, numbered items and materials stored, emitted, and told to applicants, in order."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from libs.common.calendar import end_of_day
from libs.common.crypto import Vault
from libs.common.db import columns
from libs.common.events import AcceptedItem
from libs.common.outbox import emit
from libs.common.policy.model import AtMostOne, Benefit, ClaimSubject, Item, ItemKind
from libs.common.ticker import Due, schedule
from services.intake import claims, employers, materials
from services.intake.domain import State, answer_by, categories, move, promises
from services.intake.eligibility import shown
from services.intake.outcome import Case, Docket, Outcome, Told, facts, receipt_of, received
from services.intake.promises import materials_due
from services.intake.timeline import tell
from services.intake.views import Receipt, SuccessorView, as_json, defect_views

LAPSE = "correction.lapse"
"""The kind of due work that ends an application whose correction was not answered; its key is the application's id."""

_COLUMNS = {
    "id": "uuid",
    "case_no": "text",
    "state": "text",
    "channel": "text",
    "platform": "text",
    "treasury": "text",
    "client": "text",
    "filed_by": "text",
    "applicant": "uuid",
    "beneficiary": "uuid",
    "handler": "uuid",
    "employer": "uuid",
    "employer_kind": "text",
    "payee_account": "uuid",
    "sealed": "bytea",
    "defects": "jsonb",
    "received_at": "timestamptz",
    "accepted_on": "date",
    "decided_on": "date",
    "answer_by": "date",
    "reason": "text",
    "successor": "uuid",
    "predecessor": "uuid",
    "policy_city": "text",
    "policy_version": "text",
    "policy_sha256": "text",
}
_FIXED = {"id", "case_no", "channel", "platform", "client", "filed_by", "received_at", "predecessor"}
_SAVE = text(f"""
    INSERT INTO application ({", ".join(_COLUMNS)})
    SELECT * FROM unnest({", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in _COLUMNS.items())})
    ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name not in _FIXED)}
""")  # noqa: S608 - names of our own
_SAVE_ITEMS = text("""
    INSERT INTO application_item (id, application, position, code, kind, category, certification, decision)
    SELECT id, application, position, code, kind, category, certification, decision
      FROM unnest(CAST(:ids AS uuid[]), CAST(:applications AS uuid[]), CAST(:positions AS integer[]),
                  CAST(:codes AS text[]), CAST(:kinds AS text[]), CAST(:categories AS text[]),
                  CAST(:certifications AS text[]), CAST(:decisions AS jsonb[]))
           AS r (id, application, position, code, kind, category, certification, decision)
    ON CONFLICT (application, code) DO UPDATE SET
        position = excluded.position, category = excluded.category, certification = excluded.certification,
        decision = excluded.decision
    RETURNING id, application, code
""")


@dataclass(frozen=True, slots=True)
class Entry:
    """A filing to be settled, in the state it is in. `deadline` and `told`: the last day and the titles of the defects
    that were told already. `onward`: it belongs to another platform and lives on there under this docket."""

    docket: Docket
    case: Case
    state: State
    deadline: date | None = None
    told: Collection[str] = ()
    onward: Docket | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """An application as it is stored: what became of it, from which state."""

    docket: Docket
    case: Case
    outcome: Outcome
    before: State


async def settle(tx: AsyncConnection, vault: Vault, entries: Sequence[Entry]) -> list[Receipt]:
    """Decide, store, emit and tell, in order."""
    in_the_way = await _claim(tx, entries)
    records: list[Record] = []
    first = []
    for entry in entries:
        first.append(len(records))
        records += _outcomes(entry, in_the_way.get((entry.onward or entry.docket).id, ()))
    rows = [_row(vault, record) for record in records]
    await tx.execute(_SAVE, columns(tuple(_COLUMNS), [tuple(row[name] for name in _COLUMNS) for row in rows]))
    items = await _save_items(tx, records)
    stated = [materials.Stated(it.docket.id, it.case.filing.materials, it.case.known.uploaded) for it in records]
    await materials.add_stated(tx, stated)
    accepted = [it.case for it in records if it.outcome.state is State.ACCEPTED]
    stating = [(case.employer, case.filing.employer, case.known.window) for case in accepted]
    stated_of = [(known, one, window) for known, one, window in stating if known and one]
    await employers.record(tx, entries[0].case.pack.identity, stated_of, entries[0].case.today)
    await schedule(tx, [due for record in records for due in _dues(record)])
    told = [one for record, mine in zip(records, items, strict=True) for one in _told(record, mine)]
    await emit(tx, *(event for event, _ in told))
    await tell(tx, [step for _, step in told])
    return [receipt_of(records[n].docket, records[n].case, records[n].outcome, items[n]) for n in first]


def _row(vault: Vault, record: Record) -> dict[str, Any]:
    docket, case, outcome = record.docket, record.case, record.outcome
    stated = case.filing.model_dump(mode="json", by_alias=True, exclude_unset=True)
    sealed = vault.seal(json.dumps(stated, ensure_ascii=False).encode(), filing_context(docket.id))
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


def filing_context(application: UUID) -> bytes:
    """What a sealed filing is bound to."""
    return f"application:{application}".encode()


async def _claim(tx: AsyncConnection, entries: Sequence[Entry]) -> Mapping[UUID, Collection[str]]:
    """Claim what the filings (under one policy) ask for; gives the applications of which another one holds some, and
    for which items.

    While it is in doubt who asks, or for whom, nothing is claimed: the one whose number was used would be turned away.
    """
    asked = [
        claim
        for entry in entries
        if entry.case.verdict.reason is None and not entry.case.verdict.unsure
        for claim in _claims((entry.onward or entry.docket).id, entry.case)
    ]
    return await claims.take(tx, entries[0].case.pack, asked, entries[0].case.today)


def _claims(application: UUID, case: Case) -> Iterator[claims.Claim]:
    """What a filing claims, for whom, under its own policy."""
    for item in case.items:
        if item.kind in claims.KINDS:
            rule = case.pack.find_rule(AtMostOne, item.code, on=case.today)
            spouses = case.spouses if _of_household(case, item) else ()
            people = (case.parties.beneficiary, *spouses)
            yield claims.Claim(application, item.code, people, rule.benefits if rule else (item.code,))


def _of_household(case: Case, item: Item) -> bool:
    benefit = case.pack.find_rule(Benefit, item.code, on=case.today)
    return benefit is not None and benefit.claim_subject is ClaimSubject.HOUSEHOLD


def _outcomes(entry: Entry, in_the_way: Collection[str]) -> list[Record]:
    """What becomes of a filing, and of its successor where it belongs to another platform."""
    docket, case, onward = entry.docket, entry.case, entry.onward
    if onward is None:
        outcome = _outcome(case, entry.state, entry.deadline, in_the_way)
        if entry.told and outcome.state is State.CORRECTION:
            outcome = replace(outcome, known={defect.title for defect in outcome.defects} <= set(entry.told))
        return [Record(docket, case, outcome, entry.state)]
    outcome = _outcome(case, State.RECEIVED, None, in_the_way)
    successor = SuccessorView(id=onward.id, case_no=onward.case_no, platform=onward.platform, state=outcome.state)
    transferred = Outcome(move(entry.state, "transfer"), successor=successor)
    return [Record(docket, case, transferred, entry.state), Record(onward, case, outcome, State.RECEIVED)]


def _outcome(case: Case, state: State, deadline: date | None, in_the_way: Collection[str]) -> Outcome:
    reason = case.verdict.reason or _held_already(case, in_the_way)
    if reason is not None:
        return Outcome(move(state, "not_accept"), reason=reason, in_the_way=in_the_way)
    if case.verdict.defects:
        last = deadline or answer_by(case.pack, case.today)
        return Outcome(move(state, "request_correction"), defects=case.verdict.defects, answer_by=last)
    return Outcome(move(state, "accept"))


def _held_already(case: Case, in_the_way: Collection[str]) -> str | None:
    if not in_the_way:
        return None
    return "at-most-one" if {item.code for item in case.items}.isdisjoint(in_the_way) else "duplicate"


def _dues(record: Record) -> Iterator[Due]:
    docket, case, outcome = record.docket, record.case, record.outcome
    if outcome.state is State.CORRECTION and outcome.answer_by is not None:
        yield Due(LAPSE, str(docket.id), end_of_day(outcome.answer_by))
    owed = promises(case.filing, case.items, case.known.uploaded)
    if outcome.state is State.ACCEPTED and owed:
        yield materials_due(docket.id, owed)


def _told(record: Record, items: Sequence[AcceptedItem]) -> list[Told]:
    told = [] if record.outcome.known else facts(record.docket, record.case, record.outcome, items)
    return [received(record.docket, record.case, items), *told] if record.before is State.RECEIVED else told


async def _save_items(tx: AsyncConnection, records: Sequence[Record]) -> list[list[AcceptedItem]]:
    rows = []
    found = [categories(record.case.filing, record.case.items, record.case.known) for record in records]
    for record, mine in zip(records, found, strict=True):
        case = record.case
        for n, (filed, item, category, decision) in enumerate(
            zip(case.filing.items, case.items, mine, case.verdict.decisions, strict=True), 1
        ):
            told = shown(case.pack, decision).model_dump_json() if decision else None
            place = (uuid7(), record.docket.id, n)
            rows.append((*place, item.code, item.kind.value, category, filed.certification, told))
    names = ("ids", "applications", "positions", "codes", "kinds", "categories", "certifications", "decisions")
    saved = await tx.execute(_SAVE_ITEMS, columns(names, rows))
    ids = {(row.application, row.code): row.id for row in saved}
    return [
        [
            AcceptedItem(
                item=ids[record.docket.id, item.code],
                code=item.code,
                kind=item.kind.value,
                category=category,
                benefit=item.code if item.kind is ItemKind.BENEFIT else None,
                certification=filed.certification,
            )
            for filed, item, category in zip(record.case.filing.items, record.case.items, mine, strict=True)
        ]
        for record, mine in zip(records, found, strict=True)
    ]
