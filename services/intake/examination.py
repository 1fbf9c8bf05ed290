"""Examination: who and what filings name is found or put on record, and the rules judge each of them (`domain.py`)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.calendar import local_date
from libs.common.policy import Facts, Pack
from services.intake import directories, employers, people
from services.intake.directories import Asked
from services.intake.domain import MAY_FILE, Certified, Known, check_filer, examine
from services.intake.filing import FiledPerson, Filing
from services.intake.outcome import Case, Parties
from services.intake.sight import myself

_EARLIER = text("""
    SELECT r.number, r.category, r.valid_to, COALESCE(p.merged_into, p.ref) AS person
      FROM item_result AS r JOIN application AS a ON a.id = r.application
      JOIN person AS p ON p.ref = a.beneficiary
     WHERE r.number = ANY(CAST(:numbers AS text[])) AND r.valid_to IS NOT NULL
""")


@dataclass(frozen=True, slots=True)
class Examined:
    """A filing to be examined; `uploaded`: the codes of its materials whose bytes are here; `entitled`: where it must
    name the person whose own token it comes with, by role."""

    filing: Filing
    uploaded: frozenset[str] = frozenset()
    entitled: Mapping[str, Collection[str]] = field(default_factory=lambda: MAY_FILE)


async def examine_all(
    tx: AsyncConnection,
    record: people.People,
    pack: Pack,
    asked: Sequence[Examined],
    *,
    caller: Principal,
    now: datetime,
) -> list[Case]:
    """Examine filings under a policy, in order: each finds what those before it put on record. Raises FilingWrong where
    one is not the caller's to file."""
    today = local_date(now)
    filings = [one.filing for one in asked]
    named = await _enrol(tx, record, filings, caller)
    await _check_filer(tx, asked, named, caller)
    employed = [(filing.employer, _window(filing, caller)) for filing in filings if filing.employer is not None]
    enrolled = iter(await employers.enrol(tx, employed, today))
    employer = [next(enrolled) if filing.employer is not None else None for filing in filings]
    parties = await _parties(tx, record, filings, named, employer)
    earlier = await _earlier(tx, filings, parties)
    listed = await directories.facts_of(tx, [Asked(pack, _employer_of(filing), today) for filing in filings])
    cases = []
    for one, mine, works_at, party, known, stands in zip(asked, named, employer, parties, earlier, listed, strict=True):
        window = _window(one.filing, caller)
        facts = _known(mine, works_at, one, window=window, certifications=known, listed=stands)
        verdict = examine(pack, one.filing, facts, today)
        items = [pack.item(it.code, today) for it in one.filing.items]
        cases.append(Case(pack, one.filing, items, party, _spouses(one.filing, mine), works_at, facts, verdict, now))
    return cases


async def _enrol(
    tx: AsyncConnection, record: people.People, filings: Sequence[Filing], caller: Principal
) -> list[dict[str, people.Enrolled]]:
    """Everybody whom each filing names, by place, as they are on record."""
    places = [_people(filing) for filing in filings]
    appearing = [
        people.Appearing(person, seen=_window(filing, caller) is not None)
        for filing, each in zip(filings, places, strict=True)
        for person in each.values()
    ]
    enrolled = iter(await record.enrol(tx, appearing, caller))
    return [{place: next(enrolled) for place in each} for each in places]


async def _check_filer(
    tx: AsyncConnection, asked: Sequence[Examined], named: Sequence[Mapping[str, people.Enrolled]], caller: Principal
) -> None:
    me = await myself(tx, caller)
    for one, each in zip(asked, named, strict=True):
        places = {place for place in one.filing.parties() if each[place].ref == me}
        applicant = one.filing.applicant
        if "/beneficiary" in places and applicant.kind == "person" and applicant.person is None:
            places.add("/applicant/person")
        check_filer(caller.role, places, one.entitled)


async def _parties(
    tx: AsyncConnection,
    record: people.People,
    filings: Sequence[Filing],
    named: Sequence[Mapping[str, people.Enrolled]],
    employed: Sequence[employers.Enrolled | None],
) -> list[Parties]:
    # Who files under another's number must not add to that person's record.
    certain = [_certain(filing, each) for filing, each in zip(filings, named, strict=True)]
    families = [
        people.Family(each["/beneficiary"].ref, filing.beneficiary.links, _linked(filing, each))
        for filing, each, sure in zip(filings, named, certain, strict=True)
        if sure
    ]
    await record.link(tx, families)
    stated = [filing.payee_account if sure else None for filing, sure in zip(filings, certain, strict=True)]
    mine = [(each["/beneficiary"].ref, it) for each, it in zip(named, stated, strict=True) if it is not None]
    accounts = iter(await record.add_accounts(tx, mine))
    return [
        _party(filing, each, works_at, next(accounts) if account is not None else None)
        for filing, each, works_at, account in zip(filings, named, employed, stated, strict=True)
    ]


def _employer_of(filing: Filing) -> str | None:
    return filing.employer.credit_code if filing.employer is not None else None


def _window(filing: Filing, caller: Principal) -> str | None:
    """The treasury at whose window a clerk has seen the people and the papers."""
    return caller.treasury if "intake:assist" in caller.scopes and filing.channel == "on_site" else None


def _people(filing: Filing) -> dict[str, FiledPerson]:
    """Everybody whom a filing names, by place."""
    links = filing.beneficiary.links
    return filing.parties() | {f"/beneficiary/links/{n}/person": link.person for n, link in enumerate(links)}


def _linked(filing: Filing, named: Mapping[str, people.Enrolled]) -> list[UUID]:
    return [named[f"/beneficiary/links/{n}/person"].ref for n in range(len(filing.beneficiary.links))]


def _spouses(filing: Filing, named: Mapping[str, people.Enrolled]) -> list[UUID]:
    """The spouses whom a filing names, but for those named otherwise than on record: nothing is claimed for them."""
    links = filing.beneficiary.links
    found = [named[f"/beneficiary/links/{n}/person"] for n, link in enumerate(links) if link.relation == "spouse"]
    return [one.ref for one in found if one.certain]


def _party(
    filing: Filing,
    named: Mapping[str, people.Enrolled],
    employer: employers.Enrolled | None,
    account: UUID | None,
) -> Parties:
    beneficiary, handler = named["/beneficiary"], named.get("/handler/person")
    applicant = named.get("/applicant/person", beneficiary) if filing.applicant.kind == "person" else None
    return Parties(
        applicant=applicant.ref if applicant else None,
        beneficiary=beneficiary.ref,
        handler=handler.ref if handler else None,
        employer=employer.ref if employer else None,
        payee_account=account,
    )


def _certain(filing: Filing, named: Mapping[str, people.Enrolled]) -> bool:
    return all(named[place].certain for place in filing.parties())


def _known(
    named: Mapping[str, people.Enrolled],
    employer: employers.Enrolled | None,
    asked: Examined,
    *,
    window: str | None,
    certifications: Mapping[str, Certified],
    listed: Facts,
) -> Known:
    return Known(
        affiliations=employer.affiliations if employer else (),
        window=window,
        uploaded=asked.uploaded,
        certifications=certifications,
        misnamed=[place for place, one in named.items() if one.misnamed],
        mixed=[place for place, one in named.items() if one.mixed],
        doubtful=[f"{place}/documents/{n}" for place, one in named.items() for n in one.doubtful],
        listed=listed,
        unsure=not _certain(asked.filing, named),
    )


async def _earlier(
    tx: AsyncConnection, filings: Sequence[Filing], parties: Sequence[Parties]
) -> list[Mapping[str, Certified]]:
    """Each beneficiary's certifications that the filing names, by number, where intake has heard of them."""
    named = [[item.certification for item in filing.items if item.certification is not None] for filing in filings]
    numbers = [number for each in named for number in each]
    rows = (await tx.execute(_EARLIER, {"numbers": numbers})).all() if numbers else ()
    known = {(row.number, row.person): Certified(row.category, row.valid_to) for row in rows}
    return [
        {number: known[number, party.beneficiary] for number in each if (number, party.beneficiary) in known}
        for each, party in zip(named, parties, strict=True)
    ]
