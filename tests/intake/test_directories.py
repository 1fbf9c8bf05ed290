"""Directories of employers: who enters and strikes, what stays to be seen, and what a filing of the employer gets."""

import asyncio
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from libs.common.calendar import local_date
from libs.common.packs import store
from libs.common.transaction import Transaction
from services.intake import directories, employers
from services.intake.directories import Asked, facts_of
from tests.common.packs import a_pack, anyang
from tests.intake.builders import a_credit_code, a_filing, an_employer
from tests.intake.conftest import Answer, Caller, House, uuids
from tests.intake.test_candidates import screened, told
from tests.intake.test_course import completed

TODAY = local_date(datetime.now(UTC))
TOMORROW, YESTERDAY = TODAY + timedelta(days=1), TODAY - timedelta(days=1)
PATH = "/directories/leading_enterprise"
LISTED = "employer.leading_enterprise"
STANDING = "condition.employer-in-good-standing"
MASTER = {"person.degree": "master"}


def the_keeper(house: House) -> Caller:
    return house.a("talent_office", org_unit="410500/talent_office")


def entering(
    *codes: str, since: date = TODAY, until: date | None = None, document: str = "安人才办〔2026〕5 号"
) -> Any:
    lines = [{"credit_code": code, "name": f"示例企业{n}"} for n, code in enumerate(codes, 1)]
    days = {"from": since.isoformat(), **({"to": until.isoformat()} if until else {})}
    return {"document": document, **days, "employers": lines}


def striking(*codes: str, since: date = TODAY, document: str = "安人才办〔2026〕9 号") -> Any:
    return {"document": document, "from": since.isoformat(), "employers": [{"credit_code": code} for code in codes]}


async def enter(house: House, *codes: str, **more: Any) -> None:
    answer = await the_keeper(house).post(f"{PATH}:enter", entering(*codes, **more))
    assert (answer.status, answer.body["refused"]) == (200, 0), answer.body


async def strike(house: House, *codes: str, **more: Any) -> None:
    answer = await the_keeper(house).post(f"{PATH}:strike", striking(*codes, **more))
    assert (answer.status, answer.body["refused"]) == (200, 0), answer.body


async def standing_on(house: House, day: date) -> list[str]:
    answer = await house.portal().get(f"{PATH}/employers?on={day}")
    assert answer.status == 200, answer.body
    return [one["credit_code"] for one in answer.body["items"]]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every statement that is executed from now on."""
    execute, statements = Transaction.execute, list[Any]()

    async def executed(tx: Transaction, statement: Any, *more: Any, **named: Any) -> Any:
        statements.append(statement)
        return await execute(tx, statement, *more, **named)

    monkeypatch.setattr(Transaction, "execute", executed)
    return statements


def ends(answer: Answer) -> list[Any]:
    assert answer.status == 200, answer.body
    lines = answer.body["lines"]
    return [(one["id"], one["status"], (one.get("problem") or {}).get("code")) for one in lines]


# -- entering, striking, reading


@pytest.mark.article("第二条")
async def test_an_employer_stands_in_the_directory_from_the_day_that_a_document_names_to_the_day_before_it_is_struck(
    house: House,
) -> None:
    one, other = sorted((a_credit_code(), a_credit_code()))
    await enter(house, one, other, since=TODAY)
    await strike(house, one, since=TOMORROW)
    assert await standing_on(house, YESTERDAY) == []
    assert await standing_on(house, TODAY) == [one, other]
    assert await standing_on(house, TOMORROW) == [other]
    assert not await house.rows("SELECT 1 FROM employer")  # they need not be on record


@pytest.mark.article("第二条")
async def test_every_earlier_statement_can_be_seen_with_its_document_and_who_made_it(house: House) -> None:
    code = a_credit_code()
    await enter(house, code, since=YESTERDAY, until=TODAY)
    await strike(house, code, since=TODAY)
    await enter(house, code, since=TOMORROW, document="安人才办〔2027〕1 号")
    found = (await house.a("supervisor").get(f"{PATH}/employers/{code.lower()}")).body["items"]
    assert [(one["listed"], one["valid_from"], one["valid_to"], one["document"]) for one in found] == [
        (True, TOMORROW.isoformat(), None, "安人才办〔2027〕1 号"),
        (False, TODAY.isoformat(), None, "安人才办〔2026〕9 号"),
        (True, YESTERDAY.isoformat(), TODAY.isoformat(), "安人才办〔2026〕5 号"),
    ]
    assert {(one["name"], one["by"]) for one in found} == {("示例企业1", "talent_office:410500/talent_office")}
    days = [YESTERDAY, TODAY, TOMORROW]
    assert [await standing_on(house, day) for day in days] == [[code], [], [code]]


async def test_a_bad_line_harms_no_other_and_each_has_its_answer_in_order(house: House) -> None:
    one, other = a_credit_code(), a_credit_code()
    wrong = one[:-1] + ("0" if one[-1] != "0" else "1")
    body = entering(one, wrong, one, other)
    body["employers"] += ["nothing", {"credit_code": a_credit_code()}]
    answer = await the_keeper(house).post(f"{PATH}:enter", body)
    assert ends(answer) == [
        (one, 200, None),
        (None, 422, "content-wrong"),
        (one, 409, "duplicate-line"),
        (other, 200, None),
        (None, 422, "invalid-request"),
        (body["employers"][-1]["credit_code"], 422, "invalid-request"),
    ]
    [error] = answer.body["lines"][1]["problem"]["errors"]
    assert (error["field"], error["title"]) == ("/credit_code", "统一社会信用代码校验位不正确")
    assert (answer.body["succeeded"], answer.body["refused"]) == (2, 4)
    assert await standing_on(house, TODAY) == sorted([one, other])
    never = a_credit_code()
    answer = await the_keeper(house).post(f"{PATH}:strike", striking(never, one, since=TODAY))
    assert ends(answer) == [(never, 409, "employer-not-listed"), (one, 200, None)]
    again = await the_keeper(house).post(f"{PATH}:strike", striking(one, since=TOMORROW))
    assert ends(again) == [(one, 409, "employer-not-listed")]


async def test_the_same_key_enters_once_and_other_days_under_it_are_refused(house: House) -> None:
    keeper, code = the_keeper(house), a_credit_code()
    first = await keeper.post(f"{PATH}:enter", entering(code), key="k")
    again = await keeper.post(f"{PATH}:enter", entering(code), key="k")
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    (await keeper.post(f"{PATH}:enter", entering(code, since=TOMORROW), key="k")).problem(409, "idempotency-key-reused")
    assert len(await house.rows("SELECT 1 FROM directory_entry")) == 1


async def test_days_that_end_before_they_begin_are_refused(house: House) -> None:
    body = entering(a_credit_code(), since=TODAY, until=YESTERDAY)
    told_of = (await the_keeper(house).post(f"{PATH}:enter", body)).problem(422, "content-wrong")
    assert [(error["field"], error["code"]) for error in told_of["errors"]] == [("/to", "ends-before-it-begins")]


async def test_a_directory_is_read_page_by_page(house: House) -> None:
    codes = sorted(a_credit_code() for _ in range(5))
    await enter(house, *codes)
    first = (await house.portal().get(f"{PATH}/employers?limit=3")).body
    rest = (await house.portal().get(f"{PATH}/employers?limit=3&cursor={first['next']}")).body
    assert [one["credit_code"] for one in (*first["items"], *rest["items"])] == codes
    assert rest["next"] is None
    await enter(house, codes[0])
    newest = (await house.portal().get(f"{PATH}/employers/{codes[0]}?limit=1")).body
    older = (await house.portal().get(f"{PATH}/employers/{codes[0]}?limit=1&cursor={newest['next']}")).body
    assert newest["items"][0]["id"] > older["items"][0]["id"]
    assert older["next"] is None


async def test_what_nobody_ever_entered_is_an_empty_list_and_what_is_no_directory_is_not_found(house: House) -> None:
    assert (await house.portal().get(f"{PATH}/employers/{a_credit_code()}")).body["items"] == []
    for path in ("/directories/another/employers", f"/directories/another/employers/{a_credit_code()}"):
        (await house.portal().get(path)).problem(404, "not-found")
    (await house.portal().get(f"{PATH}/employers?on=2021-03-22")).problem(404, "not-found")
    (await the_keeper(house).post("/directories/another:enter", entering(a_credit_code()))).problem(404, "not-found")


async def test_only_the_keeper_that_the_policy_names_enters_and_strikes(house: House) -> None:
    others = [
        house.a("talent_office", org_unit="410522/talent_office"),
        house.a("specialist", org_unit="410500/finance"),
        house.a("department", org_unit="410522/human_resources"),
    ]
    for other in others:
        (await other.post(f"{PATH}:enter", entering(a_credit_code()))).problem(404, "not-found")
        (await other.post(f"{PATH}:strike", striking(a_credit_code()))).problem(404, "not-found")
    for role in ("portal", "talent", "supervisor"):
        (await house.a(role).post(f"{PATH}:enter", entering(a_credit_code()))).problem(403, "forbidden")
    assert not await house.rows("SELECT 1 FROM directory_entry")
    assert await told_of(house) == []
    pack = a_pack(('version: "2021-4.4"', 'version: "2021-4.5"'), ("keeper: talent_office", "keeper: finance"))
    async with house.service.database.transaction() as tx:
        await store(tx, pack)
    await house.service.packs.refresh()
    answer = await others[1].post(f"{PATH}:enter", entering(a_credit_code()))
    assert answer.body["succeeded"] == 1
    (await the_keeper(house).post(f"{PATH}:enter", entering(a_credit_code()))).problem(404, "not-found")


async def test_who_made_a_statement_is_shown_to_the_keeper_and_to_who_supervises_it_alone(house: House) -> None:
    code = a_credit_code()
    await enter(house, code)
    unit = "410500/talent_office"
    told = [the_keeper(house), house.a("specialist", org_unit=unit), house.a("supervisor"), house.a("auditor")]
    others = [
        *(house.a(role) for role in ("portal", "talent", "handler")),
        house.a("portal", org_unit=unit),
        house.clerk("410500"),
        house.a("talent_office", org_unit="410522/talent_office"),
        house.a("department", org_unit="410500/finance"),
    ]
    for callers, officer in ((told, f"talent_office:{unit}"), (others, None)):
        for caller in callers:
            for path in (f"{PATH}/employers", f"{PATH}/employers/{code}"):
                [found] = (await caller.get(path)).body["items"]
                assert (found["by"], found["document"]) == (officer, "安人才办〔2026〕5 号")


async def test_the_policy_names_each_directory_with_its_keeper(house: House) -> None:
    policy = (await house.portal().get("/policy")).body
    assert policy["directories"] == [
        {
            "code": "leading_enterprise",
            "title": "领军型企业目录",
            "keeper": "talent_office",
            "keeper_title": "市人才工作领导小组办公室",
        }
    ]
    facts = {fact["name"]: fact for fact in policy["facts"]}
    assert (facts[LISTED]["stated_by"], facts[LISTED]["directory"]) == ("platform", "leading_enterprise")


# -- what is told of it


async def told_of(house: House) -> list[dict[str, Any]]:
    rows = await house.rows("SELECT topic, key, type, value FROM outbox WHERE topic = 'employer.listed' ORDER BY id")
    return [{**json.loads(row.value), "key": row.key, "type": row.type} for row in rows]


async def test_each_statement_is_told_of_by_its_number_once_and_a_refused_line_is_not(house: House) -> None:
    one, other, never = (a_credit_code() for _ in range(3))
    for _ in range(2):
        await the_keeper(house).post(f"{PATH}:enter", entering(one, other, since=YESTERDAY, until=TODAY), key="k")
    await the_keeper(house).post(f"{PATH}:strike", striking(never, one, since=TODAY))
    told = await told_of(house)
    assert [(each["type"], each["key"], each["valid_from"], each.get("valid_to")) for each in told] == [
        ("EmployerListed", one, YESTERDAY.isoformat(), TODAY.isoformat()),
        ("EmployerListed", other, YESTERDAY.isoformat(), TODAY.isoformat()),
        ("EmployerStruck", one, TODAY.isoformat(), None),
    ]
    kept = await house.rows("SELECT id, credit_code, document FROM directory_entry ORDER BY id")
    assert [(each["statement"], each["credit_code"], each["document"]) for each in told] == [tuple(row) for row in kept]
    assert {(each["policy"]["city"], each["directory"]) for each in told} == {("anyang", "leading_enterprise")}


async def test_what_is_told_names_no_officer_and_not_what_the_employer_is_called(house: House) -> None:
    await enter(house, a_credit_code())
    [row] = await house.rows("SELECT value FROM outbox WHERE topic = 'employer.listed'")
    value = row.value.decode()
    assert ("安人才办" in value, "示例企业" in value, "talent_office" in value) == (True, False, False)


async def test_many_statements_are_told_of_in_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [a_credit_code() for _ in range(20)]
    statements = counted(monkeypatch)
    async with house.service.database.transaction() as tx:
        [directory] = anyang().directories
        stated = directories.Statement(TODAY, None, "安人才办〔2026〕5 号", "officer")
        await directories.enter(tx, anyang(), directory, stated, [(code, "示例企业") for code in codes])
    assert (len(statements), statements[:2]) == (3, [employers._LOCK, directories._ENTER])
    assert [each["key"] for each in await told_of(house)] == codes


async def test_what_is_stated_at_once_of_one_employer_leaves_in_the_order_of_its_numbers(house: House) -> None:
    codes = [a_credit_code() for _ in range(4)]
    turned = (codes, codes[::-1])  # two in opposite orders must not wait for each other
    posts = [the_keeper(house).post(f"{PATH}:enter", entering(*turned[n % 2])) for n in range(8)]
    assert [answer.body["succeeded"] for answer in await asyncio.gather(*posts)] == [4] * 8
    told = await told_of(house)
    for code in codes:
        numbers = [each["statement"] for each in told if each["key"] == code]
        assert (len(numbers), numbers) == (8, sorted(numbers))


# -- what a filing gets


async def decided(house: House, receipt: Any) -> tuple[str, Any]:
    """The verdict on the certification as it is kept, and whether its employer was seen in the directory."""
    kept = (await house.portal().get(f"/applications/{receipt['id']}/decision")).body["decisions"][0]
    [clause] = [each for each in kept["clauses"] if each["rule"] == STANDING]
    return kept["verdict"], {each["name"]: each["value"] for each in clause["seen"]}[LISTED]


@pytest.mark.article("第二条")
async def test_a_filing_of_a_listed_employer_is_covered_though_nothing_is_known_of_its_standing(house: House) -> None:
    employer = an_employer()
    await enter(house, employer["credit_code"], since=TODAY)
    receipt = await house.portal().file(employer=employer, facts=MASTER)
    assert (receipt["state"], await decided(house, receipt)) == ("accepted", ("pass", True))
    kept = (await house.portal().get(f"/applications/{receipt['id']}/decision")).body["decisions"][0]
    [clause] = [each for each in kept["clauses"] if each["rule"] == STANDING]
    seen = {each["title"]: each["words"] for each in clause["seen"]}
    assert seen == {"用人单位经营状况良好": "未知", "用人单位列入领军型企业目录": "是"}


@pytest.mark.article("第二条")
async def test_on_the_day_before_the_listing_it_is_not_and_nothing_is_refused_for_that(house: House) -> None:
    employer = an_employer()
    await enter(house, employer["credit_code"], since=TOMORROW)
    receipt = await house.portal().file(employer=employer, facts=MASTER)
    assert (receipt["state"], await decided(house, receipt)) == ("accepted", ("undetermined", False))
    silent = await house.portal().file(employer=an_employer(), facts={**MASTER, "employer.demand_declared": False})
    assert silent["reason"]["code"] == "not-covered"  # who is not listed must have declared its demand


@pytest.mark.article("第二条")
async def test_an_employer_that_is_struck_later_leaves_the_decisions_that_were_made(house: House) -> None:
    employer = an_employer()
    await enter(house, employer["credit_code"], since=TODAY)
    receipt = await house.portal().file(employer=employer, facts=MASTER)
    await strike(house, employer["credit_code"], since=TOMORROW)
    assert await decided(house, receipt) == ("pass", True)
    application, items = uuids(receipt)
    bad = completed(application, items["talent_certification"], uuid4(), facts={"employer.good_standing": False})
    await house.hear(bad)
    assert await decided(house, receipt) == ("pass", True)


async def test_what_is_stated_later_of_the_day_of_acceptance_counts_when_the_decision_is_made_anew(
    house: House,
) -> None:
    employer = an_employer()
    receipt = await house.portal().file(employer=employer, facts=MASTER)
    await enter(house, employer["credit_code"], since=YESTERDAY)
    assert await decided(house, receipt) == ("undetermined", False)
    application, items = uuids(receipt)
    await house.hear(completed(application, items["talent_certification"], uuid4(), facts={"person.degree": "doctor"}))
    assert await decided(house, receipt) == ("pass", True)


async def test_a_correction_looks_the_employer_up_anew(house: House) -> None:
    employer = an_employer()
    receipt = await house.portal().file(employer=employer, facts=MASTER, materials=[])
    assert (receipt["state"], await decided(house, receipt)) == ("correction", ("undetermined", False))
    await enter(house, employer["credit_code"], since=TODAY)
    materials = a_filing()["materials"]
    corrected = await house.portal().post(f"/applications/{receipt['id']}:correct", {"materials": materials})
    assert (corrected.body["state"], await decided(house, receipt)) == ("accepted", ("pass", True))


async def test_whoever_has_no_employer_is_asked_what_the_directory_cannot_say(house: House) -> None:
    receipt = await house.portal().file(
        employer=None, handler=None, applicant={"kind": "person"}, region="410522", facts=MASTER
    )
    assert await decided(house, receipt) == ("undetermined", None)


async def test_no_filing_states_the_directory_for_itself(house: House) -> None:
    told_of = (await house.portal().post("/applications", a_filing(facts={LISTED: True}))).problem(422, "filing-wrong")
    assert [error["code"] for error in told_of["errors"]] == ["fact-not-yours"]


async def test_many_employers_are_looked_up_in_one_statement(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [a_credit_code() for _ in range(20)]
    await enter(house, *codes[:10])
    statements = counted(monkeypatch)
    async with house.service.database.transaction() as tx:
        asked = [Asked(anyang(), code, day) for code in codes for day in (TODAY, YESTERDAY)]
        said = await facts_of(tx, [*asked, Asked(anyang(), None, TODAY)])
    assert [each.get(LISTED) for each in said] == [True, False] * 10 + [False, False] * 10 + [None]
    assert statements == [directories._STANDING]


# -- before anything is filed


async def verdict_of(house: House, **question: Any) -> str:
    question = {"items": [{"code": "talent_certification", "category": "master"}], "facts": MASTER} | question
    answer = await house.portal().post("/eligibility", question)
    assert answer.status == 200, answer.body
    return str(answer.body["decisions"][0]["verdict"])


@pytest.mark.article("第二条")
async def test_a_question_that_names_the_employer_is_answered_by_the_directory(house: House) -> None:
    code = a_credit_code()
    await enter(house, code, since=TODAY)
    assert await verdict_of(house, employer=code) == "pass"
    assert await verdict_of(house, employer=code, on=YESTERDAY.isoformat()) == "undetermined"
    assert await verdict_of(house, employer=a_credit_code()) == "undetermined"
    unsound = {**MASTER, "employer.good_standing": False, "employer.demand_declared": True}
    assert await verdict_of(house, employer=a_credit_code(), facts=unsound) == "fail"
    claimed = {**unsound, LISTED: True}
    assert await verdict_of(house, employer=a_credit_code(), facts=claimed) == "fail"  # the directory knows better


@pytest.mark.article("第二条")
async def test_without_the_employer_it_is_undetermined_unless_the_question_says(house: House) -> None:
    unsound = {**MASTER, "employer.good_standing": False, "employer.demand_declared": True}
    assert await verdict_of(house, facts=unsound) == "undetermined"
    assert await verdict_of(house, facts={**unsound, LISTED: True}) == "pass"
    assert await verdict_of(house, facts={**unsound, LISTED: False}) == "fail"


async def test_a_wrong_credit_code_is_named(house: House) -> None:
    told_of = (await house.portal().post("/eligibility", {"employer": "91410522"})).problem(422, "content-wrong")
    assert [(error["field"], error["code"]) for error in told_of["errors"]] == [("/employer", "credit-code-form")]


@pytest.mark.article("第二条")
async def test_candidates_of_listed_employers_are_entitled_without_a_word_on_their_standing(house: House) -> None:
    code = a_credit_code()
    await enter(house, code, since=TODAY)
    found = told(
        await screened(
            house,
            {"ref": "listed", "employer": code, "facts": MASTER},
            {"ref": "other", "employer": a_credit_code(), "facts": MASTER},
            {"ref": "unnamed", "facts": MASTER},
            {"ref": "wrong", "employer": "1", "facts": MASTER},
        )
    )
    assert [one.get("ref") for one in found] == ["listed", None, None]
    assert found[1]["problem"]["errors"][0]["field"] == "/employer"
    assert found[-1] == {"lines": 4, "entitled": 1, "refused": 1}
    yesterday = told(await screened(house, {"ref": "a", "employer": code, "facts": MASTER}, query=f"?on={YESTERDAY}"))
    assert [one.get("ref") for one in yesterday] == [None]


async def test_a_decision_that_was_kept_before_there_were_directories_stays_readable(house: House) -> None:
    receipt = await house.portal().file(facts=MASTER)
    without = """UPDATE application_item
                    SET decision = regexp_replace(decision::text, '"directory": (null|"[a-z_]+"), ', '', 'g')::jsonb
                  RETURNING decision::text AS kept"""
    assert not any('"directory"' in row.kept for row in await house.rows(without))
    assert await decided(house, receipt) == ("undetermined", False)
    application, items = uuids(receipt)
    found = {"employer.good_standing": True, "employer.demand_declared": True}
    await house.hear(completed(application, items["talent_certification"], uuid4(), facts=found))
    assert await decided(house, receipt) == ("pass", False)
