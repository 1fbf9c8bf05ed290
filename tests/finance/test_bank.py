"""The file to the bank and back: whatever characters a name holds, and whatever a bank may answer."""

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.sample import bank as sandbox
from deploy.sample.bank import BankConfig, Fate
from services.finance.bank import CHANNEL, Batch, Payment, ResultFileRefused
from services.finance.domain import Outcome
from tests.finance.builders import DISTRICT, a_result, an_approval, credited, today
from tests.finance.conftest import House, reference

DAY = date(2026, 6, 10)
BATCH = Batch("41050220260610000001", DISTRICT, DAY)
CREDITED = BankConfig(bounced=0, pending=0, missing=0, wrong_amount=0, doubled=0, foreign=0)


def a_payment(n: int = 1, fen: int = 100, holder: str = "张三") -> Payment:
    return Payment(f"{n:032x}01", "6222000000000000", holder, "313496000012", fen, "购房补贴第1期")


@given(
    holder=st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=40).filter(
        lambda t: "|" not in t
    ),
    fens=st.lists(st.integers(min_value=1, max_value=10**15), min_size=1, max_size=20),
)
def test_every_name_survives_and_the_sums_are_those_of_the_payments(holder: str, fens: list[int]) -> None:
    payments = [a_payment(n, fen, holder) for n, fen in enumerate(fens)]
    assert CHANNEL.unfit(payments[0]) is None
    raw = CHANNEL.compose(BATCH, payments)
    assert {line.split("|")[3] for line in raw.decode("gb18030").split("\n")[1:-2]} == {holder}
    read = sandbox.read(raw)
    assert [(one.reference, one.fen) for one in read.instructions] == [(p.reference, p.fen) for p in payments]


@pytest.mark.parametrize("holder", ["", " ", "张|三", "张\n三", "张\x00三", "\ud800", "张" * 121])
def test_a_name_that_would_break_the_file_is_unfit(holder: str) -> None:
    assert CHANNEL.unfit(a_payment(holder=holder))
    with pytest.raises(ValueError, match="01:"):
        CHANNEL.compose(BATCH, [a_payment(holder=holder)])


def test_an_account_that_is_no_number_is_unfit() -> None:
    assert CHANNEL.unfit(replace(a_payment(), account_number="6222-0000"))
    assert CHANNEL.unfit(replace(a_payment(), branch_number=""))


@settings(max_examples=300)
@given(raw=st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(raw: bytes) -> None:
    with pytest.raises(ResultFileRefused):
        CHANNEL.read(raw)


@given(line=st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=60))
def test_no_line_harms_its_neighbour(line: str) -> None:
    raw = a_result(credited("a" * 34, 7), "R|x|1|P||").decode("gb18030").replace("R|x|1|P||", f"R|{line}")
    read = CHANNEL.read(raw.encode("gb18030"))
    assert read.lines[0].claim is not None
    assert (read.lines[0].claim.fen, read.lines[0].claim.outcome) == (7, Outcome.CREDITED)
    assert len(read.lines) == 2


@pytest.mark.parametrize(
    ("total", "count", "whole"), [(7, 2, True), (9, 2, True), (6, 2, False), (0, 2, False), (7, 1, False)]
)
def test_a_line_that_cannot_be_read_switches_no_check_off(total: int, count: int, whole: bool) -> None:
    rows = [
        f"H|HQRES1|N1|{DISTRICT}|20260610|{count}|{total}",
        credited("a" * 34, 7),
        f"R|{'b' * 34}|x|C||",
        f"T|{count}|{total}",
    ]
    raw = "".join(f"{row}\n" for row in rows).encode("gb18030")
    if whole:
        assert [line.claim is None for line in CHANNEL.read(raw).lines] == [False, True]
    else:
        with pytest.raises(ResultFileRefused):
            CHANNEL.read(raw)


@pytest.mark.parametrize("fen", ["0", "-1", "01", "1.0", "", "1e3", "１", str(10**15 + 1)])
def test_an_amount_is_whole_fen_above_zero(fen: str) -> None:
    raw = a_result("R|x|1|P||").decode().replace("|x|1|", f"|x|{fen}|")
    assert CHANNEL.read(raw.encode("gb18030")).lines[0].claim is None


def test_the_sandbox_answers_alike_for_the_same_seed_and_file() -> None:
    raw = CHANNEL.compose(BATCH, [a_payment(n) for n in range(500)])
    config = BankConfig()
    assert sandbox.answer(raw, config, on=DAY) == sandbox.answer(raw, config, on=DAY)
    assert sandbox.answer(raw, config, on=DAY) != sandbox.answer(raw, BankConfig(seed="other"), on=DAY)
    fates = [sandbox.fate(config, a_payment(n).reference) for n in range(5000)]
    assert 100 < fates.count(Fate.BOUNCED) < 200
    assert {*fates} == {*Fate}
    with pytest.raises(ValueError, match="tail"):
        sandbox.answer(raw[:-5], config, on=DAY)
    with pytest.raises(ValueError, match="thousandths"):
        BankConfig(bounced=1001)


def test_a_bank_that_credits_everything_says_so_line_by_line() -> None:
    raw = CHANNEL.compose(BATCH, [a_payment(n, n) for n in range(1, 50)])
    read = CHANNEL.read(sandbox.answer(raw, CREDITED, on=DAY))
    assert (read.treasury, read.finals) == (DISTRICT, {BATCH.number: 2})
    assert [line.claim.fen for line in read.lines if line.claim] == list(range(1, 50))
    assert len(CHANNEL.read(sandbox.answer(raw, CREDITED, on=DAY, final_round=True)).lines) == 0


async def test_two_rounds_with_the_sandbox_leave_nothing_open_but_bounces(house: House) -> None:
    await house.give_quota()
    await house.hear(*(an_approval() for _ in range(60)))
    batch = await house.send()
    raw = (await house.treasurer().get(f"/batches/{batch['id']}/file")).raw
    rough = BankConfig(bounced=150, pending=100, missing=100, wrong_amount=100, doubled=200, foreign=100)
    first = (await house.treasurer().post("/bank-results", sandbox.answer(raw, rough, on=today()))).ok()
    assert first["unknown"] == sum(
        sandbox.fate(rough, reference(order)) in {Fate.PENDING, Fate.MISSING, Fate.WRONG_AMOUNT}
        for order in await house.orders()
    )
    assert first["verdicts"]["repeated"] > 0
    assert first["exceptions"] == first["verdicts"]["wrong_amount"] + first["verdicts"]["unknown_reference"] > 0
    last = sandbox.answer(raw, rough, on=today(), final_round=True)
    (await house.treasurer().post("/bank-results", last)).ok()
    assert {order.state for order in await house.orders()} == {"settled", "bounced"}
    settled = [order for order in await house.orders() if order.state == "settled"]
    assert (await house.balances())[DISTRICT, "cash", ""] == -sum(order.public_fen for order in settled)
    assert await house.differences() == []
