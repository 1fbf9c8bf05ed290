"""What a run says of its floors."""

from math import nan

import pytest

from tests.bench import report
from tests.bench.harness import Benchmark, Judged, Measured, Round, ratio
from tests.bench.relay import BENCHMARKS


@pytest.mark.parametrize(
    ("rates", "missed"), [((0.5, 0.9), []), ((0.9, 0.49), ["a ÷ b"]), ((nan, 0.9), ["a ÷ b"]), ((0.9, nan), ["a ÷ b"])]
)
def test_a_floor_is_held_by_every_round_or_missed(rates: tuple[float, float], missed: list[str]) -> None:
    judged = Judged("a ÷ b", ratio("a", "b", "n/s"), floor=0.5, aim=0.9)
    rounds: list[Round] = [{"a": {"n/s": rate}, "b": {"n/s": 1.0}} for rate in rates]
    one = Measured(Benchmark("one", BENCHMARKS[0].prepared, [judged]), rounds)
    assert report.missed([one]) == missed
