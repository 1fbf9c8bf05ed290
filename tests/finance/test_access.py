"""Who sees what, and who may do what."""

from typing import Any
from uuid import uuid4

import pytest

from tests.finance.builders import CITY, COUNTY, DISTRICT, a_result, an_approval, credited, this_month
from tests.finance.conftest import House, reference

PUBLIC = 3_333_334
READS = (
    "/orders",
    "/orders/{order}",
    "/entitlements/{entitlement}",
    "/pending-reviews",
    "/batches",
    "/quotas",
    "/bank-exceptions",
    "/ledger/accounts",
    "/periods",
    "/settlements",
    "/reconciliation",
)
MOVES: tuple[tuple[str, Any], ...] = (
    ("/batches", {"treasury": DISTRICT}),
    ("/orders/{order}:reissue", {"payee_account": str(uuid4())}),
    ("/orders/{order}:cancel", {"reason": "x"}),
    ("/quotas/{quota}:increase", {"fen": 1, "reason": "x"}),
    ("/bank-results", a_result()),
    ("/bank-exceptions/{exception}:resolve", {"resolution": "x"}),
    (f"/periods/{DISTRICT}/{this_month()}:close", {"reason": "x"}),
)


@pytest.fixture
async def places(house: House) -> dict[str, str]:
    """A settled order with everything around it."""
    order = await house.due_order()
    batch = await house.send()
    await house.told(credited(reference(order), PUBLIC), credited("f" * 34, 1))
    await house.close(this_month(), DISTRICT)
    (exception,) = await house.rows("SELECT id FROM bank_exception")
    return {
        "order": str(order.id),
        "entitlement": str(order.entitlement_id),
        "beneficiary": str(order.beneficiary),
        "quota": str(order.quota_id),
        "batch": batch["id"],
        "exception": str(exception.id),
    }


async def test_without_the_scope_nothing_is_looked_up(house: House, places: dict[str, str]) -> None:
    for role in ("portal", "ops", "service"):
        caller = house.a(role)
        for path in READS:
            (await caller.get(path.format(**places))).problem(403, "forbidden")
    for role in ("talent", "supervisor", "auditor"):
        caller = house.a(role, person=places["beneficiary"])
        for path, body in MOVES:
            (await caller.post(path.format(**places), body)).problem(403, "forbidden")
        (await caller.get(f"/batches/{places['batch']}/file")).problem(403, "forbidden")


async def test_another_treasury_sees_and_moves_nothing_here(house: House, places: dict[str, str]) -> None:
    other = house.treasurer(COUNTY)
    for path in ("/orders", "/batches", "/quotas", "/bank-exceptions", "/ledger/accounts", "/settlements", "/periods"):
        assert (await other.get(path)).ok()["items"] == []
    for path in ("/orders/{order}", "/entitlements/{entitlement}", "/batches/{batch}/file"):
        (await other.get(path.format(**places))).problem(404, "not-found")
    for path, body in MOVES[1:4] + MOVES[5:6]:
        (await other.post(path.format(**places), body)).problem(404, "not-found")
    (await other.post("/batches", {"treasury": DISTRICT})).problem(404, "not-found")
    assert (await other.get("/reconciliation")).ok()["paid_fen"] == {}


async def test_a_treasury_officer_posted_outside_finance_sees_and_moves_nothing(
    house: House, places: dict[str, str]
) -> None:
    for treasury in (DISTRICT, CITY):
        posted = house.a("treasury", org_unit=f"{treasury}/education", person=places["beneficiary"])
        for path in ("/orders", "/batches", "/quotas", "/bank-exceptions", "/ledger/accounts", "/settlements"):
            assert (await posted.get(path)).ok()["items"] == []
        assert (await posted.get("/periods")).ok()["items"] == []
        for path in ("/orders/{order}", "/entitlements/{entitlement}", "/batches/{batch}/file", "/reconciliation"):
            (await posted.get(path.format(**places))).problem(404, "not-found")
        for path, body in MOVES[:-1]:
            (await posted.post(path.format(**places), body)).problem(404, "not-found")
        close = f"/periods/{DISTRICT}/{this_month()}:close"
        (await posted.post(close, {"reason": "x"})).problem(403, "not-the-city-treasury")


async def test_an_unknown_record_looks_like_one_out_of_sight(house: House, places: dict[str, str]) -> None:
    mine, other = house.treasurer(), house.treasurer(COUNTY)
    unknown = (await mine.get(f"/orders/{uuid4()}")).problem(404, "not-found")
    hidden = (await other.get(f"/orders/{places['order']}")).problem(404, "not-found")
    assert {**unknown, "instance": ""} == {**hidden, "instance": ""}


async def test_a_talent_sees_what_is_paid_to_them_alone(house: House, places: dict[str, str]) -> None:
    await house.hear(an_approval())
    me = house.a("talent", person=places["beneficiary"])
    assert [order["id"] for order in (await me.get("/orders")).ok()["items"]] == [places["order"]]
    (await me.get(f"/orders/{places['order']}")).ok()
    (await me.get(f"/entitlements/{places['entitlement']}")).ok()
    for path in ("/batches", "/quotas", "/bank-exceptions", "/ledger/accounts", "/settlements", "/periods"):
        assert (await me.get(path)).ok()["items"] == []
    (await me.get("/reconciliation")).problem(404, "not-found")
    for stranger in (house.a("talent", person=str(uuid4())), house.a("talent"), house.a("handler", person="x")):
        assert (await stranger.get("/orders")).ok()["items"] == []
        (await stranger.get(f"/orders/{places['order']}")).problem(404, "not-found")


async def test_the_city_sees_settlements_and_its_own_book_and_watchers_see_all(
    house: House, places: dict[str, str]
) -> None:
    city = house.treasurer(CITY)
    assert (await city.get("/orders")).ok()["items"] == []
    (settled,) = (await city.get("/settlements")).ok()["items"]
    assert (settled["treasury"], settled["amount"]["fen"], settled["route"]) == (DISTRICT, 1_000_000, "direct")
    assert {account["treasury"] for account in (await city.get("/ledger/accounts")).ok()["items"]} == {CITY}
    for watcher in (house.a("supervisor"), house.a("auditor")):
        for path in READS:
            (await watcher.get(path.format(**places))).ok()
        books = (await watcher.get("/ledger/accounts")).ok()["items"]
        assert {account["treasury"] for account in books} == {CITY, DISTRICT}
    own = (await house.treasurer().get("/settlements")).ok()["items"]
    assert own == [settled]


async def test_the_report_says_what_was_paid_and_settled(house: House, places: dict[str, str]) -> None:
    report = (await house.a("auditor").get("/reconciliation", month=this_month())).ok()
    assert report["paid_fen"] == {DISTRICT: PUBLIC}
    assert report["fiscal_settlement_fen"] == {DISTRICT: 1_000_000}
    assert report["differences"] == []
    assert all(check["violations"] == 0 for check in report["checks"])
    assert sum(check["checked"] for check in report["checks"]) > len(report["checks"])


async def test_creating_and_moving_needs_a_key(house: House) -> None:
    for path, body in MOVES:
        filled = path.format(order=uuid4(), quota=uuid4(), exception=uuid4())
        caller = house.treasurer(CITY)
        headers = {"Authorization": f"Bearer {caller._token}"}
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        answer = await caller._client.post(f"/finance/v1{filled}", headers=headers, **content)
        assert (answer.status_code, answer.json()["code"]) == (400, "idempotency-key-missing")


@pytest.mark.parametrize("reason", ["  ", "\n", "\u200b", "a\u202eb"], ids=ascii)
async def test_a_reason_that_shows_nothing_is_refused_wherever_finance_asks_for_one(house: House, reason: str) -> None:
    for path, body in MOVES:
        if isinstance(body, dict) and body.keys() & {"reason", "resolution"}:
            given = {name: reason if name in {"reason", "resolution"} else value for name, value in body.items()}
            filled = path.format(order=uuid4(), quota=uuid4(), exception=uuid4())
            answer = await house.treasurer(CITY).post(filled, given)
            told = {error["code"] for error in answer.body["errors"]}
            assert (answer.status, told <= {"string_too_short", "invisible-character"}) == (422, True), answer.body
