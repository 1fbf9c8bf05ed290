"""Group commit: filings that come at once go into the database together, and nobody notices but the clock."""

import asyncio
from typing import Any

from libs.common.db import connect
from tests.conftest import Postgres
from tests.intake.builders import CITY, a_filing, a_mandate, a_person, an_employer, licences
from tests.intake.conftest import Answer, Caller, House

HN_1 = [{"system": "henan_portal", "kind": "case", "value": "HN-1"}]
CARE: dict[str, Any] = {"items": [{"code": "medical_care"}], "materials": licences("identity_document")}


async def at_once(caller: Caller, *filings: dict[str, Any], keys: list[str] | None = None) -> list[Answer]:
    given = keys or [f"k{n}" for n in range(len(filings))]
    posts = (caller.post("/applications", filing, key=key) for filing, key in zip(filings, given, strict=True))
    return list(await asyncio.gather(*posts))


async def transactions(house: House) -> int:
    [row] = await house.rows("SELECT count(DISTINCT xmin::text) AS n FROM application")
    return int(row.n)


async def test_filings_at_once_share_a_transaction_and_each_has_its_own_answer(house: House) -> None:
    filings = [a_filing(beneficiary=a_person(name)) for name in ("王小明", "欧阳𫍽", "李·四", *["赵大"] * 17)]
    for filing in filings:
        filing["payee_account"]["holder"] = filing["beneficiary"]["name"]
    answers = await at_once(house.portal(), *filings)
    assert [answer.body["state"] for answer in answers] == ["accepted"] * 20
    for field in ("id", "case_no", "beneficiary"):
        assert len({answer.body[field] for answer in answers}) == 20
    assert await transactions(house) < 10
    again = await at_once(house.portal(), *filings)
    assert [answer.content for answer in again] == [answer.content for answer in answers]


async def test_who_is_refused_harms_no_neighbour(house: House) -> None:
    taken = await house.portal("portal-b").file(external_refs=HN_1)
    filings = [a_filing() for _ in range(8)]
    filings[2]["external_refs"] = HN_1
    filings[4]["items"] = [{"code": "no_such_item"}]
    answers = await at_once(house.portal(), *filings)
    assert [answer.status for answer in answers] == [201, 201, 409, 201, 422, 201, 201, 201]
    assert answers[2].body["errors"][0]["field"] == "/external_refs/0/value"
    assert len(await house.rows("SELECT id FROM application")) == 7
    await house.portal("portal-b").post(f"/applications/{taken['id']}:withdraw")
    mended = await house.portal().post("/applications", filings[2] | {"external_refs": []}, key="k2")
    assert mended.status == 201, "a refused filing leaves its key free"


async def test_two_equal_keys_give_one_application_and_another_body_is_refused(house: House) -> None:
    one, other = a_filing(), a_filing()
    answers = await at_once(house.portal(), one, other, one, other, keys=["a", "a", "a", "b"])
    assert [answer.status for answer in answers] == [201, 409, 201, 201]
    assert answers[0].content == answers[2].content
    assert "idempotency-replayed" in answers[2].headers
    assert "idempotency-replayed" not in answers[0].headers
    assert len(await house.rows("SELECT id FROM application")) == 2


async def test_of_one_person_filed_twice_at_once_one_has_the_benefit(house: House) -> None:
    person = a_person()
    answers = await at_once(house.portal(), *(a_filing(beneficiary=person) for _ in range(5)), a_filing())
    assert sorted(answer.body["state"] for answer in answers) == ["accepted"] * 2 + ["not_accepted"] * 4
    assert len({answer.body["beneficiary"] for answer in answers}) == 2
    assert len(await house.rows("SELECT 1 FROM payee_account")) == 2


async def test_one_employer_and_one_handler_of_many_are_one_record(house: House) -> None:
    employer, handler = an_employer(), {"person": a_person("张经办"), "authority": a_mandate()}
    filings = [a_filing(employer=employer, handler=handler) for _ in range(6)]
    for filing in filings[1:]:
        del filing["employer"]["affiliations"]  # those that the first one states are on record by then
    answers = await at_once(house.portal(), *filings)
    assert [answer.body["state"] for answer in answers] == ["accepted"] * 6
    assert len({answer.body["handler"] for answer in answers}) == 1
    assert [len(await house.rows(f"SELECT 1 FROM {table}")) for table in ("employer", "employer_version")] == [1, 1]  # noqa: S608


async def test_a_new_name_of_an_employer_counts_from_the_filing_that_states_it(house: House) -> None:
    employer = an_employer()
    names = ["甲公司", "甲公司", "乙公司", "乙公司", "甲公司"]
    answers = await at_once(house.portal(), *(a_filing(employer=employer | {"name": name}) for name in names))
    assert {answer.status for answer in answers} == {201}
    versions = await house.rows("SELECT name FROM employer_version ORDER BY id")
    assert [row.name for row in versions] == ["甲公司", "乙公司", "甲公司"]


async def test_transfers_and_corrections_in_one_group_are_numbered_and_told_apart(house: House) -> None:
    here, there, open_ = a_filing(), a_filing(platform=CITY), a_filing(materials=[])
    answers = await at_once(house.portal(), here, there, open_, there | {"beneficiary": a_person()})
    assert [answer.body["state"] for answer in answers] == ["accepted", "transferred", "correction", "transferred"]
    successors = [answer.body["successor"]["case_no"] for answer in answers if answer.body["successor"]]
    numbers = {answer.body["case_no"] for answer in answers} | set(successors)
    assert len(numbers) == 6
    for answer in answers:
        kinds = await house.kinds(answer.body["id"])
        assert kinds[0] == "ApplicationReceived"
        assert len(kinds) == 2


async def test_each_event_goes_on_in_the_trace_of_its_own_request(house: House) -> None:
    traces = [f"00-{n:032x}-{n:016x}-01" for n in range(1, 7)]
    portal = house.portal()
    answers = await asyncio.gather(
        *(portal.post("/applications", a_filing(**CARE), headers={"traceparent": trace}) for trace in traces)
    )
    rows = await house.rows("SELECT key, traceparent AS trace FROM outbox")
    found = {row.key: row.trace[3:35] for row in rows}
    filed = {answer.body["id"]: trace[3:35] for answer, trace in zip(answers, traces, strict=True)}
    places = await house.rows("SELECT id::text, employer::text FROM application")
    assert found == filed | {row.employer: filed[row.id] for row in places}
    assert await transactions(house) < 6


async def test_a_database_that_fails_for_a_moment_is_everybodys_and_the_same_keys_work_afterwards(
    house: House, postgres: Postgres
) -> None:
    filings = [a_filing() for _ in range(4)]
    name = str(house.service.database.url.database)
    connection = await connect(postgres.url(name))
    try:
        await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        await house.service.database.close()
        assert {answer.status for answer in await at_once(house.portal(), *filings)} == {503}
        await connection.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        await house.service.database.close()
    finally:
        await connection.close()
    assert {answer.status for answer in await at_once(house.portal(), *filings)} == {201}
    assert len(await house.rows("SELECT id FROM application")) == 4
