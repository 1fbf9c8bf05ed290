"""An employer moves between the acceptance and the day due: who pays, over HTTP, with all services running."""

from datetime import timedelta
from typing import Any

import pytest

from tests.conftest import System
from tests.intake.builders import a_filing, an_employer
from tests.steps import (
    confirm,
    departments_answer,
    desks_of,
    found,
    item_of,
    officers_of,
    order_of,
    propose,
    today,
    treasurer_of,
)

CITY, COUNTY, YINDU = "410500", "410522", "410505"


@pytest.mark.article("第五条")
async def test_the_treasury_that_the_employer_moved_to_pays_what_falls_due_there(system: System) -> None:
    moves_on = today() + timedelta(days=1)
    affiliations: list[dict[str, Any]] = [
        {"kind": "fiscal", "treasury": COUNTY, "evidence": "隶属关系证明", "to": today().isoformat()},
        {"kind": "fiscal", "treasury": YINDU, "evidence": "划转批复", "from": moves_on.isoformat()},
    ]
    async with desks_of(system) as at:
        filing = a_filing(employer=an_employer(kind="institution", affiliations=affiliations))
        receipt = await at.desk("portal").post("/intake/v1/applications", filing, key="moved")
        assert (receipt["state"], receipt["treasury"]) == ("accepted", COUNTY)
        await departments_answer(at, receipt["id"])
        one, other = officers_of(at, COUNTY)
        for code, verdict in (("talent_certification", "certify"), ("living_allowance", "approve")):
            item = await item_of(at, receipt["id"], code)
            await propose(one, item, verdict)
            await confirm(other, item)

        # Due two working days later, when the employer belongs to the district: its treasury, and a district's ratio.
        order = await order_of(at, receipt["id"], "unfunded")
        assert order["due_on"] >= moves_on.isoformat()
        assert (order["treasury"], order["shares"]) == (YINDU, {CITY: 240_000, YINDU: 360_000})
        path, benefit = f"/finance/v1/orders/{order['id']}", f"/finance/v1/entitlements/{order['entitlement']}"
        assert await found(treasurer_of(at, COUNTY), path) is None
        assert await treasurer_of(at, YINDU).get(path) == await at.desk("supervisor").get(path)
        for treasury in (COUNTY, YINDU):  # both see the benefit that it is of
            seen = await treasurer_of(at, treasury).get(benefit)
            assert (seen["treasury"], seen["instalments"][0]["treasury"]) == (COUNTY, YINDU)
