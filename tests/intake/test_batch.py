"""Bulk files: each line its own key and its own end."""

import json
from typing import Any

from services.intake.api.batch import MAX_LINES
from services.intake.api.lines import MAX_LINE_BYTES
from tests.intake.builders import a_filing, a_person
from tests.intake.conftest import Answer, Caller, House


def a_line(key: str, **changes: Any) -> bytes:
    return json.dumps({"idempotency_key": key, "application": a_filing(**changes)}).encode()


async def send(caller: Caller, *lines: bytes, media_type: str = "application/x-ndjson") -> Answer:
    return await caller._ask(
        "POST", "/applications:batch", headers={"Content-Type": media_type}, content=b"\n".join(lines)
    )


def results(answer: Answer) -> list[Any]:
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.content.decode().splitlines()]


async def test_a_bad_line_harms_no_other_and_each_has_its_result_in_order(house: House) -> None:
    person = a_person()
    lines = [
        a_line("k1", beneficiary=person),
        b"{",
        b"",
        a_line("k2", items=[{"code": "no_such_item"}]),
        a_line("k1"),
        b"[1]",
        a_line("bad key"),
        b" " * (MAX_LINE_BYTES + 1) + b"x",
        a_line("k3", materials=[]),
        a_line("k4", beneficiary=person),
    ]
    told = results(await send(house.portal(), *lines))
    ends = [one["problem"]["code"] if "problem" in one else one["application"]["state"] for one in told]
    assert [(one["line"], one["status"], end) for one, end in zip(told, ends, strict=True)] == [
        (1, 201, "accepted"),
        (2, 400, "malformed-body"),
        (4, 422, "filing-wrong"),
        (5, 409, "idempotency-key-reused"),
        (6, 422, "invalid-request"),
        (7, 400, "idempotency-key-missing"),
        (8, 413, "too-large"),
        (9, 201, "correction"),
        (10, 201, "not_accepted"),
    ]
    assert told[2]["problem"]["errors"][0]["field"] == "/items/0/code"
    assert len(await house.rows("SELECT 1 FROM application")) == 3


async def test_the_same_file_again_changes_nothing_and_a_line_alone_is_the_same_filing(house: House) -> None:
    portal, filing = house.portal(), a_filing()
    line = json.dumps({"idempotency_key": "k1", "application": filing}).encode()
    first, again = await send(portal, line), await send(portal, line)
    assert first.content == again.content
    alone = await portal.post("/applications", filing, key="k1")
    assert alone.body == results(first)[0]["application"]
    assert len(await house.rows("SELECT 1 FROM application")) == 1


async def test_a_file_over_its_lines_says_so_and_keeps_what_came_before(house: House) -> None:
    told = results(await send(house.portal(), a_line("k1"), *[b"{}"] * (MAX_LINES + 5)))
    assert len(told) == MAX_LINES + 1
    assert told[0]["status"] == 201
    assert (told[-1]["line"], told[-1]["problem"]["code"]) == (MAX_LINES + 1, "batch-too-long")


async def test_blank_lines_do_not_count(house: House) -> None:
    told = results(await send(house.portal(), *[b""] * (MAX_LINES + 1), a_line("k1")))
    assert [(one["line"], one["status"]) for one in told] == [(MAX_LINES + 2, 201)]


async def test_a_line_refused_for_its_form_repeats_its_key(house: House) -> None:
    told = results(
        await send(house.portal(), b'{"idempotency_key": "k1", "application": 1}', b'{"idempotency_key": 1}')
    )
    assert [(one["status"], one.get("idempotency_key")) for one in told] == [(422, "k1"), (422, None)]


async def test_a_client_that_knows_no_json_lines_sends_the_file_as_bytes(house: House) -> None:
    told = results(await send(house.portal(), a_line("k1"), media_type="application/octet-stream"))
    assert [one["status"] for one in told] == [201]


async def test_another_media_type_is_refused(house: House) -> None:
    (await send(house.portal(), a_line("k1"), media_type="text/plain")).problem(415, "unsupported-media-type")
