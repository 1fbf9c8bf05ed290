"""Employers: whose word counts for where they belong, and from when."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.calendar import local_date
from libs.common.policy import ManualDecision, NoRuleInForce, Pack, affiliated_treasury
from libs.common.treasuries import Affiliation, AffiliationKind
from services.intake import employers
from services.intake.domain import Known, Verdict, examine
from services.intake.filing import read_filing
from tests.common.packs import a_pack, anyang
from tests.intake.builders import CITY, COUNTY, DISTRICT, a_filing, an_employer, licences
from tests.intake.conftest import Caller, House

TODAY = date(2026, 3, 2)
CARE: dict[str, Any] = {"items": [{"code": "medical_care"}], "materials": licences("identity_document")}


def tied(treasury: str, first: str | None = None, last: str | None = None, kind: str = "fiscal") -> dict[str, Any]:
    return {"kind": kind, "treasury": treasury, "evidence": "证明", "from": first, "to": last}


async def asked_of(house: House, employer: dict[str, Any]) -> Any:
    """The treasury by what is on record, as a filing without affiliations finds it; else its defects."""
    receipt = await house.portal("portal-c").file(employer={**employer, "affiliations": []}, **CARE)
    return receipt["treasury"] or [defect["code"] for defect in receipt["defects"]]


def codes(receipt: Any) -> list[str]:
    return [defect["code"] for defect in receipt["defects"]]


# -- whose word counts


async def test_what_a_filing_says_of_an_employer_counts_for_others_once_it_is_accepted(house: House) -> None:
    employer, portal = an_employer(), house.portal()
    receipt = await portal.file(employer=employer, items=CARE["items"], materials=[])
    assert (receipt["state"], receipt["treasury"]) == ("correction", COUNTY)  # for itself it counts at once
    assert await asked_of(house, employer) == ["affiliation-missing"]
    await portal.post(f"/applications/{receipt['id']}:correct", {"materials": CARE["materials"]})
    assert await asked_of(house, employer) == COUNTY


async def test_a_filing_that_is_not_accepted_leaves_nothing_on_record_of_its_employer(house: House) -> None:
    employer, portal = an_employer(), house.portal()
    first = a_filing()
    assert (await portal.post("/applications", first)).body["state"] == "accepted"
    again = await portal.file(beneficiary=first["beneficiary"], employer=employer)
    assert again["reason"]["code"] == "duplicate"
    assert await asked_of(house, employer) == ["affiliation-missing"]
    named = "SELECT name FROM employer_version v JOIN employer e ON e.ref = v.employer WHERE e.credit_code = :code"
    assert not await house.rows(named, code=employer["credit_code"])


async def test_another_name_is_on_record_once_its_filing_is_accepted(house: House) -> None:
    employer, portal = an_employer(), house.portal()
    await portal.file(employer=employer, **CARE)
    other = {**employer, "name": "乙公司", "status": "closed"}
    assert codes(await house.portal("portal-b").file(employer=other, **CARE)) == ["employer-not-active"]
    names = await house.rows("SELECT name, status FROM employer_version ORDER BY id")
    assert [tuple(row) for row in names] == [(employer["name"], "active")]


async def test_a_stranger_does_not_move_an_employer_to_another_treasury(house: House) -> None:
    employer, stranger = an_employer(COUNTY), house.portal("portal-b")
    await house.portal().file(employer=employer, **CARE)
    moved = await stranger.file(employer={**employer, "affiliations": [tied(DISTRICT)]}, **CARE)
    assert (codes(moved), moved["platform"]) == (["affiliation-differs"], COUNTY)
    assert await asked_of(house, employer) == COUNTY
    silent = {"employer": {**employer, "affiliations": []}}
    answer = await stranger.post(f"/applications/{moved['id']}:correct", silent)
    assert (answer.body["state"], answer.body["treasury"]) == ("accepted", COUNTY)


async def test_the_window_of_the_treasury_that_is_to_pay_moves_an_employer(house: House) -> None:
    employer = an_employer(COUNTY)
    await house.portal().file(employer=employer, **CARE)
    moved = {"employer": {**employer, "affiliations": [tied(DISTRICT)]}, **CARE}
    assert codes(await house.clerk(COUNTY).file(channel="on_site", **moved)) == ["affiliation-differs"]
    unseen = await house.clerk(DISTRICT).file(channel="online", **moved)
    assert (unseen["state"], unseen["successor"]["state"]) == ("transferred", "correction")
    assert (await house.clerk(DISTRICT).file(channel="on_site", **moved))["state"] == "accepted"
    assert await asked_of(house, employer) == DISTRICT


async def test_of_two_who_say_different_things_at_once_the_first_accepted_one_counts(house: House) -> None:
    for _ in range(3):
        employer = an_employer()
        filings = [
            a_filing(employer={**employer, "affiliations": [tied(treasury)]}, **CARE)
            for treasury in (COUNTY, DISTRICT) * 3
        ]
        posts = (house.portal(f"p{n % 3}").post("/applications", filing) for n, filing in enumerate(filings))
        receipts = [answer.body for answer in await asyncio.gather(*posts)]
        accepted = {receipt["treasury"] for receipt in receipts if receipt["state"] == "accepted"}
        assert len(accepted) == 1
        assert {*accepted} == {await asked_of(house, employer)}
        assert sum(receipt["state"] == "correction" for receipt in receipts) == 3


async def test_in_one_file_a_line_finds_on_record_what_an_accepted_line_before_it_said(house: House) -> None:
    employer = an_employer()
    silent = {**employer, "affiliations": []}
    lines: list[dict[str, Any]] = [
        {"employer": employer, "items": CARE["items"], "materials": []},  # in correction
        {"employer": silent, **CARE},
        {"employer": employer, **CARE},
        {"employer": silent, **CARE},
        {"employer": {**employer, "affiliations": [tied(DISTRICT)]}, **CARE},
    ]
    receipts = await in_one_file(house.portal(), [a_filing(**line) for line in lines])
    assert [codes(receipt) for receipt in receipts] == [
        ["material-missing"], ["affiliation-missing"], [], [], ["affiliation-differs"],
    ]  # fmt: skip


async def in_one_file(caller: Caller, filings: list[dict[str, Any]]) -> list[Any]:
    lines = [json.dumps({"idempotency_key": f"k{n}", "application": one}) for n, one in enumerate(filings)]
    headers = {"Content-Type": "application/x-ndjson"}
    answer = await caller._ask("POST", "/applications:batch", headers=headers, content="\n".join(lines).encode())
    return [json.loads(line)["application"] for line in answer.content.decode().splitlines()]


async def test_an_employer_does_not_move_by_two_filings_of_which_one_ends_the_record(house: House) -> None:
    employer, today = an_employer(COUNTY), local_date(datetime.now(UTC))
    await house.portal().file(employer=employer, **CARE)
    until_today = tied(COUNTY, last=today.isoformat())
    from_tomorrow = tied(DISTRICT, (today + timedelta(days=1)).isoformat())
    ends = {**employer, "affiliations": [until_today]}
    assert (await house.portal("portal-b").file(employer=ends, **CARE))["state"] == "accepted"
    elsewhere = {"employer": {**employer, "affiliations": [until_today, from_tomorrow]}, **CARE}
    assert codes(await house.portal("portal-b").file(**elsewhere)) == ["affiliation-differs"]
    assert (await house.clerk(DISTRICT).file(channel="on_site", **elsewhere))["state"] == "transferred"
    assert [ties for _, ties in await told(house)][1:] == [
        [(COUNTY, today.isoformat())], [(COUNTY, today.isoformat()), (DISTRICT, None)],
    ]  # fmt: skip


# -- what is told of it


async def told(house: House) -> list[tuple[int, list[tuple[str, str | None]]]]:
    """What was told of employers, in order: the revision, and each tie's treasury and last day."""
    rows = await house.rows("SELECT value FROM outbox WHERE type = 'EmployerAffiliated' ORDER BY id")
    events = [json.loads(row.value) for row in rows]
    return [
        (event["revision"], [(each["treasury"], each["valid_to"]) for each in event["affiliations"]])
        for event in events
    ]


async def test_a_statement_that_counts_is_told_once_and_not_by_each_filing_that_says_the_same(house: House) -> None:
    employer = an_employer(COUNTY)
    await house.portal().file(employer=employer, items=CARE["items"], materials=[])  # in correction
    assert await told(house) == []
    for _ in range(2):
        await house.portal().file(employer=employer, **CARE)
    await house.portal().file(employer={**employer, "affiliations": []}, **CARE)
    ((first, ties),) = await told(house)
    assert ties == [(COUNTY, None)]

    moved = {**employer, "affiliations": [tied(COUNTY, last="2026-06-30"), tied(DISTRICT, "2026-07-01")]}
    await house.clerk(DISTRICT).file(channel="on_site", employer=moved, **CARE)
    _, (second, ties) = await told(house)
    assert ties == [(COUNTY, "2026-06-30"), (DISTRICT, None)]
    assert second > first


async def test_a_filing_that_states_another_past_changes_none(house: House) -> None:
    moved = [tied(COUNTY, "2021-03-23", "2026-06-30"), tied(DISTRICT, "2026-07-01")]
    employer = an_employer(affiliations=moved)
    await house.portal().file(employer=employer, **CARE)
    for ties in ([tied(DISTRICT, "2026-08-01")], [tied(DISTRICT, "2021-03-23")], moved):
        receipt = await house.portal().file(employer={**employer, "affiliations": ties}, **CARE)
        assert (receipt["state"], receipt["treasury"]) == ("accepted", DISTRICT)
    ((_, kept),) = await told(house)  # by which finance splits what fell due in the county's time: nothing new
    assert kept == [(COUNTY, "2026-06-30"), (DISTRICT, None)]


async def test_a_past_is_restated_at_the_window_of_the_treasury_that_takes_it_on_alone(house: House) -> None:
    employer = an_employer(affiliations=[tied(COUNTY, "2021-03-23", "2026-06-30"), tied(DISTRICT, "2026-07-01")])
    await house.portal().file(employer=employer, **CARE)
    other = {**employer, "affiliations": [tied(DISTRICT, "2021-03-23")]}
    await house.clerk(COUNTY).file(channel="on_site", employer=other, **CARE)
    assert len(await told(house)) == 1
    await house.clerk(DISTRICT).file(channel="on_site", employer=other, **CARE)
    assert [ties for _, ties in await told(house)][1:] == [[(DISTRICT, None)]]


async def test_a_statement_with_a_tie_that_has_ended_can_be_filed_again(house: House) -> None:
    employer = an_employer(affiliations=[tied(COUNTY, last="2026-01-31"), tied(DISTRICT, "2026-02-01")])
    receipts = [await house.portal().file(employer=employer, **CARE) for _ in range(2)]
    assert [receipt["state"] for receipt in receipts] == ["accepted", "accepted"]
    assert len(await told(house)) == 1


async def test_what_is_told_names_the_employer_by_reference_and_no_evidence(house: House) -> None:
    employer = an_employer(COUNTY)
    await house.portal().file(employer=employer, **CARE)
    (row,) = await house.rows("SELECT key, topic, value FROM outbox WHERE type = 'EmployerAffiliated'")
    (known,) = await house.rows("SELECT ref FROM employer WHERE credit_code = :code", code=employer["credit_code"])
    assert (row.topic, row.key) == ("employer.affiliated", str(known.ref))
    assert employer["credit_code"] not in row.value.decode()
    assert "证明" not in row.value.decode()


async def test_all_who_are_on_record_are_told_of_anew_by_request_a_few_at_a_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(employers, "TOLD_AT_ONCE", 2)
    for _ in range(5):
        await house.portal().file(employer=an_employer(), **CARE)
    await asked_of(house, an_employer())  # on record, but nothing was stated of it
    before, after = await told(house), ""
    counts: list[int] = []
    while not counts or counts[-1]:
        async with house.service.database.transaction() as tx:
            codes = await employers.tell_next(tx, anyang().identity, after)
        after, counts = codes[-1] if codes else after, [*counts, len(codes)]
    assert counts == [2, 2, 1, 0]
    again = (await told(house))[len(before) :]
    assert sorted(again) == sorted(before)


async def test_of_statements_made_at_once_the_one_told_last_is_the_one_that_counts(house: House) -> None:
    employer = an_employer()
    stated = [{**employer, "affiliations": [{**tied(COUNTY), "evidence": f"证明{n}"}]} for n in range(6)]
    posts = (
        house.portal(f"p{n % 3}").post("/applications", a_filing(employer=each, **CARE))
        for n, each in enumerate(stated)
    )
    await asyncio.gather(*posts)
    revisions = [revision for revision, _ in await told(house)]
    assert revisions == sorted(revisions)
    (newest,) = await house.rows("SELECT max(id) AS id FROM employer_affiliation")
    assert revisions[-1] == newest.id
    (statements,) = await house.rows("SELECT count(DISTINCT statement) AS n FROM employer_affiliation")
    assert len(revisions) == statements.n


# -- what disagrees with the record


def on_record(*ties: dict[str, Any]) -> Known:
    return Known(
        affiliations=[
            Affiliation(
                kind=AffiliationKind(tie["kind"]),
                treasury=tie["treasury"],
                valid_from=date.fromisoformat(tie["from"]) if tie["from"] else date.min,
                valid_to=date.fromisoformat(tie["to"]) if tie["to"] else None,
            )
            for tie in ties
        ]
    )


def judged(known: Known, *ties: dict[str, Any], pack: Pack | None = None) -> Verdict:
    pack = pack or anyang()
    filing = read_filing(a_filing(employer=an_employer(affiliations=list(ties)), **CARE), pack, TODAY)
    return examine(pack, filing, known, TODAY)


@pytest.mark.parametrize(
    ("known", "stated"),
    [
        ([tied(COUNTY)], [tied(COUNTY)]),
        ([tied(COUNTY)], [tied(COUNTY, "2021-03-23", kind="fiscal"), tied(DISTRICT, kind="tax")]),
        ([tied(COUNTY)], [tied(COUNTY, last="2026-12-31")]),
        ([tied(COUNTY, last="2026-03-01")], [tied(COUNTY, "2026-03-02")]),
        ([tied(COUNTY, last="2026-01-31")], [tied(DISTRICT, "2025-01-01", "2026-01-31"), tied(COUNTY, "2026-02-01")]),
        ([tied(DISTRICT, last="2025-12-31"), tied(COUNTY, "2026-01-01")], [tied(COUNTY)]),
        ([], [tied(DISTRICT)]),
    ],
)
def test_what_leaves_the_employer_where_it_is_from_today_on_is_no_disagreement(
    known: list[dict[str, Any]], stated: list[dict[str, Any]]
) -> None:
    assert judged(on_record(*known), *stated).defects == ()


@pytest.mark.parametrize(
    ("known", "stated"),
    [
        ([tied(COUNTY)], [tied(DISTRICT)]),
        ([tied(COUNTY, kind="tax")], [tied(COUNTY, kind="tax"), tied(DISTRICT)]),
        ([tied(COUNTY)], [tied(COUNTY, last="2026-12-31"), tied(DISTRICT, "2027-01-01")]),
        ([tied(COUNTY)], [tied(COUNTY, last="2026-12-31"), tied("410000", "2027-01-01")]),
        ([tied(COUNTY, last="2026-12-31"), tied(DISTRICT, "2027-01-01")], [tied(COUNTY)]),
        ([tied(COUNTY, "2026-06-01")], [tied(DISTRICT)]),
        ([tied(COUNTY, last="2026-03-01")], [tied(DISTRICT, "2026-03-02")]),
        ([tied(COUNTY, last="2026-01-31")], [tied(DISTRICT, "2026-02-01", "2026-02-10"), tied(COUNTY, "2026-02-11")]),
        (
            [tied(COUNTY, last="2026-03-31"), tied(COUNTY, "2026-06-01")],
            [tied(COUNTY, last="2026-03-31"), tied(DISTRICT, "2026-04-01", "2026-05-31"), tied(COUNTY, "2026-06-01")],
        ),
    ],
)
def test_what_puts_the_employer_elsewhere_today_or_later_is_a_defect(
    known: list[dict[str, Any]], stated: list[dict[str, Any]]
) -> None:
    assert [defect.code for defect in judged(on_record(*known), *stated).defects] == ["affiliation-differs"]


def test_an_employer_that_moved_twice_since_its_record_ended_goes_first_where_it_is_now() -> None:
    before, between = tied(COUNTY, last="2026-02-10"), tied(DISTRICT, "2026-02-11", "2026-02-20")
    now = tied(CITY, "2026-02-21")

    def at(window: str, known: list[dict[str, Any]], *stated: dict[str, Any]) -> list[str]:
        return [defect.code for defect in judged(replace(on_record(*known), window=window), *stated).defects]

    for window in (DISTRICT, CITY):
        assert at(window, [before], between, now) == ["affiliation-differs"]
    assert at(CITY, [before], now) == []
    assert at(DISTRICT, [before, now], between, now) == []


def test_a_tie_that_decides_nothing_does_not_hide_where_the_employer_last_was() -> None:
    pack = a_pack(("kinds: [fiscal, administrative, tax, registration]", "kinds: [fiscal, tax]"))
    known = on_record(tied(COUNTY, last="2026-02-27"), tied(COUNTY, last="2026-02-28", kind="administrative"))
    verdict = judged(known, tied(DISTRICT, "2026-03-01"), pack=pack)
    assert [defect.code for defect in verdict.defects] == ["affiliation-differs"]


ORDER = """
    kinds: [fiscal, administrative, tax, registration]
    document: anyang-2021-4
    article: 第二条
    valid_from: 2021-03-23
"""
OTHER_ORDER = """
  - id: affiliation.order-since-april
    kinds: [tax, fiscal]
    document: anyang-2021-4
    article: 第二条
    valid_from: 2026-04-01
    version_by: accepted_on
    assumption: true
    note: 供测试。

manual_decisions:
"""


COUNTY_TREASURY = """
    regions: [{region: "410522", valid_from: 2021-03-23}]
    valid_from: 2021-03-23
"""


@cache
def tax_first_since_april(kinds: str = "tax, fiscal") -> Pack:
    other = OTHER_ORDER.replace("tax, fiscal", kinds)
    return a_pack((ORDER, f"{ORDER}    valid_to: 2026-03-31\n"), ("\nmanual_decisions:\n", other))


def tax_alone_since_april() -> Pack:
    return tax_first_since_april("tax")


@cache
def no_county_since_april() -> Pack:
    return a_pack((COUNTY_TREASURY, f"{COUNTY_TREASURY}    valid_to: 2026-03-31\n"))


def test_what_puts_the_employer_elsewhere_once_the_policy_takes_another_order_is_a_defect() -> None:
    known, stated = on_record(tied(COUNTY)), [tied(COUNTY), tied(DISTRICT, kind="tax")]
    assert judged(known, *stated).defects == ()
    for policy in (tax_first_since_april(), tax_alone_since_april()):
        later = judged(known, *stated, pack=policy)
        assert [defect.code for defect in later.defects] == ["affiliation-differs"]


def test_what_names_another_treasury_for_when_that_of_the_record_is_no_more_is_a_defect() -> None:
    known, stated = on_record(tied(COUNTY)), [tied(COUNTY, last="2026-03-31"), tied(DISTRICT, "2026-04-01")]
    assert [each.code for each in judged(known, *stated, pack=no_county_since_april()).defects] == [
        "affiliation-differs"
    ]


def test_what_a_later_order_confirms_is_no_disagreement_with_an_older_place() -> None:
    ties = [tied(DISTRICT, last="2025-12-31"), tied(COUNTY, "2026-01-01")]
    stated = [*ties, tied(COUNTY, kind="tax")]
    assert judged(on_record(*ties), *stated, pack=tax_alone_since_april()).defects == ()


DAYS = st.dates(TODAY - timedelta(days=40), TODAY + timedelta(days=40)).map(date.isoformat)
TIES = st.builds(
    tied,
    st.sampled_from([COUNTY, DISTRICT]),
    st.none() | DAYS,
    st.none() | DAYS,
    st.sampled_from(["fiscal", "tax"]),
).filter(lambda tie: not (tie["from"] and tie["to"]) or tie["from"] <= tie["to"])


@settings(deadline=None)
@pytest.mark.parametrize("policy", [anyang, tax_first_since_april, tax_alone_since_april, no_county_since_april])
@given(known=st.lists(TIES, max_size=3), stated=st.lists(TIES, min_size=1, max_size=3))
def test_nothing_is_accepted_that_would_put_an_employer_elsewhere_today_or_later_or_since_its_record_ended(
    policy: Callable[[], Pack], known: list[dict[str, Any]], stated: list[dict[str, Any]]
) -> None:
    before, verdict = on_record(*known), judged(on_record(*known), *stated, pack=policy())
    if verdict.reason is None and not verdict.defects:
        after, stood = on_record(*stated), None
        for day in (TODAY + timedelta(days=days) for days in range(-41, 90)):
            here, there = (treasury_on(policy(), then, day) for then in (before, after))
            has_ended = not any(tie.valid_to is None or tie.valid_to >= day for tie in before.affiliations)
            stood = here or stood
            if day >= TODAY or has_ended:
                assert None in {stood, there} or stood == there, day


def treasury_on(pack: Pack, known: Known, day: date) -> str | None:
    try:
        return affiliated_treasury(pack, known.affiliations, day).code
    except ManualDecision:
        return "people decide"
    except NoRuleInForce:
        return None
