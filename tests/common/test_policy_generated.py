"""Whatever pack the model accepts: its splits sum to the whole, and one that it does not accept says where and why."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.policy import Pack, PackRefused, PolicyDates, Split, split
from libs.common.treasuries import EmployerKind
from tests.common.packs import edited
from tests.common.test_policy import DAY

CITY, DISTRICT, OTHER, ZONE, PROVINCE = "410500", "410502", "410526", "410571", "410000"
EMPLOYERS = """employer_kinds: [enterprise]
    share: 1/3"""
PLAN = """sharing.purchase-subsidy.district
    benefits: [purchase_subsidy]
    treasury_kinds: [district]
    shares: [{bearer: "410500", share: 3/10}, {bearer: affiliated, share: 7/10}]
    remainder_to: affiliated"""
ADVANCE = "advanced_by: affiliated"
BEARERS = st.lists(st.sampled_from((CITY, "affiliated", OTHER, ZONE, DISTRICT)), min_size=1, max_size=5, unique=True)
AMOUNTS = st.integers(1, 10**12)


def a_generated_pack(employer: Fraction, shares: dict[str, Fraction], remainder_to: str, payer: str) -> Pack:
    born = ", ".join(f'{{bearer: "{bearer}", share: "{share}"}}' for bearer, share in shares.items())
    plan = PLAN.replace('{bearer: "410500", share: 3/10}, {bearer: affiliated, share: 7/10}', born).replace(
        "remainder_to: affiliated", f'remainder_to: "{remainder_to}"'
    )
    return Pack.parse(
        edited(
            (EMPLOYERS, EMPLOYERS.replace("1/3", f'"{employer}"')),
            (PLAN, plan),
            (ADVANCE, f'advanced_by: "{payer}"'),
        ).encode()
    )


def splits(pack: Pack, fen: int) -> list[Split]:
    when = PolicyDates(accepted_on=DAY, due_on=DAY)
    return [
        split(pack, benefit="purchase_subsidy", treasury=DISTRICT, on=when, total_fen=fen, employer_kind=kind)
        for kind in (EmployerKind.ENTERPRISE, EmployerKind.INSTITUTION)
    ]


@pytest.mark.article("第五条")
@settings(max_examples=60)  # each reads a pack
@given(data=st.data(), bearers=BEARERS, employer=st.fractions(0, Fraction(99, 100), max_denominator=100))
def test_every_split_of_a_generated_pack_sums_to_the_whole(
    data: st.DataObject, bearers: list[str], employer: Fraction
) -> None:
    weights = data.draw(st.lists(st.integers(1, 30), min_size=len(bearers), max_size=len(bearers)))
    shares = {bearer: Fraction(weight, sum(weights)) for bearer, weight in zip(bearers, weights, strict=True)}
    payer = data.draw(st.sampled_from(("affiliated", CITY, OTHER)))
    pack = a_generated_pack(employer, shares, data.draw(st.sampled_from(bearers)), payer)
    for fen in data.draw(st.lists(AMOUNTS, min_size=1, max_size=20)):
        for parts in splits(pack, fen):
            assert parts.employer + parts.public == fen
            assert sum(parts.shares.values()) == parts.public
            assert min(parts.shares.values()) >= 0
            paid_by_others = sum(parts.receivables.values())
            assert parts.shares.get(parts.advanced_by, 0) + paid_by_others == parts.public


@pytest.mark.article("第五条")
@settings(max_examples=60)  # each reads a pack
@given(
    bearers=st.lists(st.sampled_from((CITY, "affiliated", OTHER, PROVINCE, "410599")), min_size=1, max_size=4),
    weights=st.lists(st.integers(-3, 12), min_size=4, max_size=4),
    remainder_to=st.sampled_from((CITY, "affiliated", OTHER)),
    payer=st.sampled_from(("affiliated", CITY, PROVINCE, "410599")),
)
def test_a_plan_that_is_not_sound_is_refused_with_its_place_and_one_that_is_accepted_is_sound(
    bearers: list[str], weights: list[int], remainder_to: str, payer: str
) -> None:
    shares = {bearer: Fraction(weight, 10) for bearer, weight in zip(bearers, weights, strict=False)}
    sound = (
        sum(shares.values()) == 1
        and min(shares.values()) >= 0
        and remainder_to in shares
        and not {PROVINCE, "410599"} & {*shares, payer}
    )
    if not sound:
        with pytest.raises(PackRefused) as refused:
            a_generated_pack(Fraction(1, 3), shares, remainder_to, payer)
        assert all(defect.line and defect.reason for defect in refused.value.defects)
        return
    pack = a_generated_pack(Fraction(1, 3), shares, remainder_to, payer)
    for parts in splits(pack, 1_000_003):
        assert parts.employer + sum(parts.shares.values()) == 1_000_003
