"""States, and what a bank's words mean."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.finance.domain import (
    TITLES,
    TRANSITIONS,
    BounceReason,
    Claim,
    OrderStateForbids,
    Outcome,
    PaymentState,
    Sent,
    Verdict,
    judge,
    judge_together,
    next_state,
)

DAY = date(2026, 6, 10)
days = st.integers(min_value=-3, max_value=3).map(lambda n: DAY + timedelta(days=n))
claims = st.builds(
    Claim,
    fen=st.sampled_from([100, 100, 101]),
    outcome=st.sampled_from(Outcome),
    on=st.none() | days,
    reason=st.none() | st.just(BounceReason.NAME_DIFFERS),
)


def sent(outcome: Outcome | None = None, on: date | None = None) -> Sent:
    return Sent(fen=100, sent_on=DAY, outcome=outcome, outcome_on=on)


def claim(outcome: Outcome, on: date | None = DAY, fen: int = 100) -> Claim:
    return Claim(fen, outcome, on, BounceReason.NAME_DIFFERS if outcome is Outcome.BOUNCED else None)


C, B, P = Outcome.CREDITED, Outcome.BOUNCED, Outcome.PENDING
LATER = DAY + timedelta(days=1)


@pytest.mark.parametrize(
    ("known", "told", "verdict"),
    [
        (None, claim(C), Verdict.UNKNOWN_REFERENCE),
        (sent(), claim(C, fen=99), Verdict.WRONG_AMOUNT),
        (sent(), claim(P, None, fen=99), Verdict.WRONG_AMOUNT),
        (sent(), claim(C), Verdict.SETTLE),
        (sent(), claim(B), Verdict.BOUNCE),
        (sent(), claim(P, None), Verdict.PENDING),
        (sent(), claim(C, DAY - timedelta(days=1)), Verdict.IMPLAUSIBLE_DATE),
        (sent(), claim(C, LATER + timedelta(days=1)), Verdict.IMPLAUSIBLE_DATE),
        (sent(C, DAY), claim(C), Verdict.REPEATED),
        (sent(C, DAY), claim(C, LATER), Verdict.CONTRADICTION),
        (sent(C, DAY), claim(B, LATER), Verdict.BOUNCE),
        (sent(C, LATER), claim(B, DAY), Verdict.CONTRADICTION),
        (sent(C, DAY), claim(P, None), Verdict.REPEATED),
        (sent(B, DAY), claim(B), Verdict.REPEATED),
        (sent(B, DAY), claim(C, LATER), Verdict.CONTRADICTION),
    ],
)
def test_what_a_line_means(known: Sent | None, told: Claim, verdict: Verdict) -> None:
    assert judge(known, told, today=LATER) is verdict


@given(told=st.lists(claims, min_size=1, max_size=6), known=st.sampled_from([None, sent(), sent(C, DAY), sent(B, DAY)]))
def test_one_file_moves_one_payment_at_most_once(told: list[Claim], known: Sent | None) -> None:
    verdicts = judge_together(known, told, today=LATER)
    assert len(verdicts) == len(told)
    assert sum(verdict in {Verdict.SETTLE, Verdict.BOUNCE} for verdict in verdicts) <= 1
    moves = [each for each, verdict in zip(told, verdicts, strict=True) if verdict is Verdict.SETTLE]
    assert all(each.fen == 100 and each.outcome is C for each in moves)
    assert known != sent(B, DAY) or not moves


@given(told=st.permutations([claim(C), claim(B)]))
def test_lines_of_one_file_that_contradict_each_other_are_not_believed(told: list[Claim]) -> None:
    assert set(judge_together(sent(), told, today=LATER)) == {Verdict.CONTRADICTION}


def test_what_the_bank_has_is_neither_sent_again_nor_cancelled() -> None:
    for state in (PaymentState.SENT, PaymentState.UNKNOWN, PaymentState.SETTLED):
        for action in ("send", "reissue", "cancel"):
            with pytest.raises(OrderStateForbids):
                next_state(state, action)


def test_every_state_is_reached_and_named() -> None:
    assert set(TITLES) == set(PaymentState)
    assert {state for state, _ in TRANSITIONS} | set(TRANSITIONS.values()) == set(PaymentState)
