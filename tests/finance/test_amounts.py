"""Who bears what, from one fen up: a table written by hand, and what the orders of the service say."""

import pytest

from libs.common.policy import Succession
from libs.common.treasuries import EmployerKind
from services.finance import ledger
from services.finance.entitlements import share
from tests.common.packs import anyang
from tests.finance.builders import CITY, COUNTY, DISTRICT, PROVINCE_MANAGED, ZONE, an_approval, today
from tests.finance.conftest import House

# whole → employer, city, affiliated treasury: the employer's third rounded down, then the city's share rounded down
LIVING_DISTRICT = {
    1: (0, 0, 1),
    2: (0, 0, 2),
    3: (1, 0, 2),
    4: (1, 1, 2),
    5: (1, 1, 3),
    10: (3, 2, 5),
    99: (33, 26, 40),
    100: (33, 26, 41),
    333_333: (111_111, 88_888, 133_334),
    1_000_000_000_000: (333_333_333_333, 266_666_666_666, 400_000_000_001),
}
LIVING_COUNTY = {
    1: (0, 0, 1),
    2: (0, 0, 2),
    3: (1, 0, 2),
    4: (1, 0, 3),
    5: (1, 1, 3),
    10: (3, 2, 5),
    99: (33, 19, 47),
    100: (33, 20, 47),
    333_333: (111_111, 66_666, 155_556),
    1_000_000_000_000: (333_333_333_333, 200_000_000_000, 466_666_666_667),
}
PURCHASE_DISTRICT = {
    1: (0, 0, 1),
    2: (0, 0, 2),
    3: (1, 0, 2),
    4: (1, 0, 3),
    5: (1, 1, 3),
    10: (3, 2, 5),
    99: (33, 19, 47),
    100: (33, 20, 47),
    333_333: (111_111, 66_666, 155_556),
    1_000_000_000_000: (333_333_333_333, 200_000_000_000, 466_666_666_667),
}
PURCHASE_COUNTY = {
    1: (0, 0, 1),
    2: (0, 0, 2),
    3: (1, 0, 2),
    4: (1, 0, 3),
    10: (3, 0, 7),
    14: (4, 1, 9),
    15: (5, 1, 9),
    99: (33, 6, 60),
    100: (33, 6, 61),
    333_333: (111_111, 22_222, 200_000),
    1_000_000_000_000: (333_333_333_333, 66_666_666_666, 600_000_000_001),
}
CITY_LEVEL = {
    1: (0, 1, 0),
    2: (0, 2, 0),
    3: (1, 2, 0),
    4: (1, 3, 0),
    10: (3, 7, 0),
    99: (33, 66, 0),
    100: (33, 67, 0),
    333_333: (111_111, 222_222, 0),
    1_000_000_000_000: (333_333_333_333, 666_666_666_667, 0),
}
TABLE = {
    ("living_allowance", DISTRICT): LIVING_DISTRICT | {900_000: (300_000, 240_000, 360_000)},
    ("living_allowance", ZONE): LIVING_DISTRICT,
    ("living_allowance", COUNTY): LIVING_COUNTY | {900_000: (300_000, 180_000, 420_000)},
    ("living_allowance", PROVINCE_MANAGED): LIVING_COUNTY,
    ("living_allowance", CITY): CITY_LEVEL,
    ("purchase_subsidy", DISTRICT): PURCHASE_DISTRICT | {5_000_000: (1_666_666, 1_000_000, 2_333_334)},
    ("purchase_subsidy", ZONE): PURCHASE_DISTRICT,
    ("purchase_subsidy", COUNTY): PURCHASE_COUNTY | {5_000_000: (1_666_666, 333_333, 3_000_001)},
    ("purchase_subsidy", PROVINCE_MANAGED): PURCHASE_COUNTY,
    ("purchase_subsidy", CITY): CITY_LEVEL,
}
ROWS = [
    (benefit, treasury, whole, *parts) for (benefit, treasury), rows in TABLE.items() for whole, parts in rows.items()
]


def alone() -> Succession:
    """The one version, of the grant and of the day due."""
    return Succession(anyang(), anyang())


@pytest.mark.parametrize(("benefit", "treasury", "whole", "employer", "city", "own"), ROWS)
def test_shares_are_those_of_the_table(  # noqa: PLR0917 - a row of the table
    benefit: str, treasury: str, whole: int, employer: int, city: int, own: int
) -> None:
    event = an_approval(benefit=benefit, treasury=treasury)
    parts = share(alone(), event, due_on=today(), fen=whole, employer_kind=EmployerKind.ENTERPRISE)
    assert parts.employer == employer
    assert parts.shares.get(CITY, 0) == city
    assert (0 if treasury == CITY else parts.shares[treasury]) == own
    assert parts.advanced_by == treasury
    assert -ledger.payout_entries(payer=treasury, shares=parts.shares)[ledger.Account(treasury, "cash")] == city + own


@pytest.mark.parametrize("kind", ["institution", "government", "social_organisation", "own_startup"])
def test_only_an_enterprise_bears_a_third(kind: str) -> None:
    parts = share(alone(), an_approval(), due_on=today(), fen=100, employer_kind=EmployerKind(kind))
    assert (parts.employer, parts.shares) == (0, {CITY: 30, DISTRICT: 70})


@pytest.mark.parametrize("treasury", [CITY, DISTRICT, COUNTY, PROVINCE_MANAGED, ZONE])
@pytest.mark.parametrize("category", ["doctor", "targeted_graduate"])
async def test_orders_of_the_service_sum_to_the_whole(house: House, treasury: str, category: str) -> None:
    await house.hear(
        an_approval(treasury=treasury, category=category),
        an_approval(treasury=treasury, category=category, benefit="living_allowance"),
        an_approval(treasury=treasury, category=category, employer=None, employer_kind=None),
    )
    assert len(await house.orders()) == 3
    assert all(order.treasury == treasury for order in await house.orders())
    assert await house.differences() == []
