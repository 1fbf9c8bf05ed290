"""One application's journey, from the portal to a settled ledger. If you read one file of this repository, read this.

A county's enterprise hired a master. Its handler files, through the province's portal, for the certification and the
living allowance that goes with it: 36,000 yuan over three years in six parts, of which the employer bears a third and
the treasuries the rest, county and city 7 to 3 (第五条). All services run as `huanquan up` starts them; everybody below
works over HTTP with a token of their own. How each step is taken stands in tests/steps.py.
"""

import secrets

from deploy.sample.client import Platform
from services.intake.api.examples import FILING
from tests.conftest import System
from tests.steps import (
    Json,
    case_of,
    confirm,
    departments_answer,
    desks_of,
    eventually,
    give_quota,
    item_of,
    named_in,
    officers_of,
    order_of,
    propose,
    send_to_bank,
    take_to_bank_and_back,
    today,
    trail_of,
    treasurer_of,
)

COUNTY, CITY, PROVINCE = "410522", "410500", "410000"
INSTALMENT, EMPLOYERS_THIRD, CITYS_SHARE, COUNTYS_SHARE = 600_000, 200_000, 120_000, 280_000
WHAT_HAPPENED = {
    "application.received": ["ApplicationReceived", "ApplicationAccepted"],
    "dept.assigned": ["DeptAssigned"] * 6,
    "dept.completed": ["DeptCompleted"] * 6,
    "talent.certified": ["TalentCertified", "BenefitApproved"],
    "application.closed": ["ApplicationClosed"],
    "payout.ordered": ["PayoutOrdered", "PayoutOrdered", "PayoutSent"],  # ordered again, when the quota reached it
    "payout.settled": ["PayoutSettled"],
}
"""What is told of the application, topic by topic: between topics there is no order."""


async def test_one_application_travels_from_the_portal_to_a_settled_ledger(system: System) -> None:
    async with desks_of(system) as at:
        trace = secrets.token_hex(16)

        # The portal files. Nothing is missing, so the application is accepted in the same moment.
        portal = at.desk("portal")
        filed_under = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
        receipt = await portal.post("/intake/v1/applications", FILING, key="HN-2026-000001", headers=filed_under)
        application = receipt["id"]
        assert (receipt["state"], receipt["treasury"], receipt["defects"]) == ("accepted", COUNTY, [])

        # The departments of the county answer: several side by side, and the last only when those before it are done.
        first, then = await departments_answer(at, application)
        assert first == {
            ("talent_certification", "public_security"),
            ("talent_certification", "education"),
            ("talent_certification", "human_resources"),
            ("living_allowance", "human_resources"),
            ("living_allowance", "tax"),
        }
        assert then == {("talent_certification", "talent_office")}

        # Two officers certify the talent; only now may the allowance be decided, by two officers again.
        one, other = officers_of(at, COUNTY)
        for code, verdict in (("talent_certification", "certify"), ("living_allowance", "approve")):
            item = await item_of(at, application, code)
            assert item["state"] == "awaiting_decision"
            await propose(one, item, verdict)
            await confirm(other, item)
        assert (await case_of(at, application))["state"] == "closed"

        # Finance has an order at once, for the first of six parts. It waits until the county's budget provides for it.
        treasurer = treasurer_of(at, COUNTY)
        order = await order_of(at, application, "unfunded")
        assert order["amount"]["fen"] == INSTALMENT - EMPLOYERS_THIRD
        assert order["employer"]["fen"] == EMPLOYERS_THIRD
        assert order["shares"] == {CITY: CITYS_SHARE, COUNTY: COUNTYS_SHARE}
        await give_quota(treasurer, COUNTY, "living_allowance", fen=100_000_000)
        order = await order_of(at, application, "due")

        # The county's treasury pays the whole public part by a bank file. Settled means: the bank confirmed the credit.
        batch = await send_to_bank(treasurer, COUNTY, order)
        await order_of(at, application, "sent")
        told = await take_to_bank_and_back(treasurer, batch)
        assert (told["verdicts"]["settle"], told["exceptions"]) == (1, 0)
        order = await order_of(at, application, "settled")
        assert order["settled_on"] == today().isoformat() <= order["due_on"]

        # The books of both say the same: the county paid, and the city owes it its share.
        assert await book_of(at, COUNTY) == {
            "cash": -400_000,
            "expenditure": COUNTYS_SHARE,
            f"due_from {CITY}": CITYS_SHARE,
        }
        assert (await book_of(at, CITY))[f"due_to {COUNTY}"] == -CITYS_SHARE

        # The city closes the county's month, early and with a reason, and settles by its route: by the province.
        city, month = treasurer_of(at, CITY), f"{today():%Y-%m}"
        early = {"reason": "年终提前关账"}
        [closing] = (await city.post(f"/finance/v1/periods/{COUNTY}/{month}:close", early, key="close"))["results"]
        assert (closing["result"], closing["fen"], closing["route"]) == ("closed", CITYS_SHARE, "via_province")
        assert await book_of(at, COUNTY) == {"cash": -COUNTYS_SHARE, "expenditure": COUNTYS_SHARE}
        assert f"due_to {COUNTY}" not in await book_of(at, CITY)
        assert await book_of(at, PROVINCE) == {}  # what came in went on

        # Nothing is left to reconcile.
        report = await at.desk("auditor").get("/finance/v1/reconciliation")
        assert report["differences"] == []
        assert report["fiscal_settlement_fen"][COUNTY] == CITYS_SHARE

        # Whoever filed is told all results together.
        view = await eventually(
            lambda: portal.get(f"/intake/v1/applications/{application}"),
            lambda view: view["payments"] and view["payments"][0]["state"] == "settled",
        )
        assert view["state"] == "closed"
        for words in ("人才认定", "有效期至", "生活补贴", "已到账 4,000.00 元"):
            assert words in view["feedback"]

        # Audit heard every step once, in a chain that is whole. It leads back to the portal's request and names nobody.
        steps = await eventually(
            lambda: trail_of(at, application), lambda steps: len(steps) == sum(map(len, WHAT_HAPPENED.values()))
        )
        assert by_topic(steps) == WHAT_HAPPENED
        assert caused_by(trace, steps) == {"ApplicationReceived", "ApplicationAccepted", "DeptAssigned"}
        assert named_in([(step["headers"], step["payload"]) for step in steps], FILING) == []
        assert (await at.desk("auditor").post("/audit/v1/trail:verify", {}))["verified"]


async def book_of(at: Platform, treasury: str) -> dict[str, int]:
    """The balances of a treasury's book that are not zero, in fen; a debit is positive."""
    accounts = await at.desk("auditor").pages("/finance/v1/ledger/accounts", treasury=treasury)
    balances = {f"{each['kind']} {each['counterparty']}".strip(): each["balance"]["fen"] for each in accounts}
    return {account: fen for account, fen in balances.items() if fen}


def by_topic(steps: list[Json]) -> dict[str, list[str]]:
    """The kinds of events in each topic, in their order."""
    told: dict[str, list[str]] = {}
    for step in steps:
        told.setdefault(step["topic"], []).append(step["type"])
    return told


def caused_by(trace: str, steps: list[Json]) -> set[str]:
    """The kinds of events that came of a request, by the trace that they carry."""
    return {step["type"] for step in steps if step["headers"]["ce_traceparent"][3:35] == trace}
