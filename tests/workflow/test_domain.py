"""The rules that move tasks, items and cases."""

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.workflow.clock import Clock
from services.workflow.domain import (
    DECIDED_KINDS,
    ENDED,
    TRANSITIONS,
    CaseState,
    CertificationUndecided,
    DecisionObstructed,
    ItemState,
    Obstacle,
    ReasonMissing,
    Step,
    Support,
    SuspensionDayRefused,
    TaskNotOpen,
    TaskOverdue,
    TaskState,
    VerdictUnknown,
    benefit_obstacles,
    case_end,
    check_proposal,
    check_resumption,
    check_suspension,
    next_step,
    task_state_after,
)

kinds = st.sampled_from(["certification", "benefit", "service", "change"])
results = st.lists(st.sampled_from([None, "passed", "failed"]), max_size=5)


def test_what_has_ended_moves_no_more() -> None:
    ended = {*ENDED, TaskState.COMPLETED, TaskState.CANCELLED, CaseState.CLOSED, CaseState.REFUSED, CaseState.WITHDRAWN}
    assert not ended & {state for state, _ in TRANSITIONS}


@given(kinds, st.integers(-1, 4), st.integers(0, 4), results)
def test_nothing_follows_before_every_task_of_the_stage_has_its_result(
    kind: str, stage: int, stages: int, given_results: list[str | None]
) -> None:
    step = next_step(kind, stage=stage, stages=stages, results=given_results)
    assert (step is Step.WAIT) == (None in given_results)
    if "failed" in given_results:
        assert step is not Step.ASSIGN
    if kind in DECIDED_KINDS:
        assert step in {Step.WAIT, Step.ASSIGN, Step.FINISH}
    else:
        assert step is not Step.FINISH


@given(st.lists(st.sampled_from(ItemState), min_size=1))
def test_a_case_ends_with_its_last_item_and_is_refused_where_nothing_was_granted(items: list[ItemState]) -> None:
    action = case_end(items)
    assert (action is None) == any(state not in ENDED for state in items)
    if action:
        assert (action == "close") == (ItemState.DONE in items)


@pytest.mark.parametrize("state", [TaskState.SUSPENDED, TaskState.COMPLETED, TaskState.CANCELLED])
def test_only_an_open_task_takes_a_result(state: TaskState) -> None:
    with pytest.raises(TaskNotOpen):
        task_state_after(state, "complete")


def test_a_limit_that_has_passed_is_not_stretched_afterwards() -> None:
    clock = Clock(date(2026, 3, 2), 2)
    check_suspension(clock, from_day=date(2026, 3, 4), today=date(2026, 3, 4))
    with pytest.raises(TaskOverdue):
        check_suspension(clock, from_day=date(2026, 3, 3), today=date(2026, 3, 5))


def test_a_stretch_begins_neither_before_the_assignment_nor_tomorrow() -> None:
    clock = Clock(date(2026, 3, 2), 5)
    for day in (date(2026, 3, 1), date(2026, 3, 4)):
        with pytest.raises(SuspensionDayRefused):
            check_suspension(clock, from_day=day, today=date(2026, 3, 3))
    with pytest.raises(SuspensionDayRefused):
        check_resumption(from_day=date(2026, 3, 3), to_day=date(2026, 3, 2), today=date(2026, 3, 3))


def _obstacles(**changes: Any) -> list[str]:
    support = Support("RD1", "master", date(2026, 3, 2))
    given: dict[str, Any] = {
        "number": None,
        "support": support,
        "accepted_on": date(2026, 3, 2),
        "excluded": None,
        "approved": None,
    }
    return [each.code for each in benefit_obstacles(**given | changes)]


def test_a_benefit_needs_a_valid_certification_and_is_approved_once() -> None:
    assert _obstacles() == []
    assert _obstacles(support=None) == ["certification-missing"]
    assert _obstacles(accepted_on=date(2026, 3, 3)) == ["certification-expired"]
    assert _obstacles(excluded="不享受", approved="DX1") == ["category-excluded", "benefit-already-approved"]


def test_a_grant_needs_ready_facts_and_a_refusal_only_its_reason() -> None:
    failed = [Obstacle("task-failed", "未通过")]
    check_proposal("benefit", verdict="refuse", reason="不符合条件", obstacles=failed, ready=False)
    with pytest.raises(ReasonMissing):
        check_proposal("benefit", verdict="refuse", reason=None, obstacles=[], ready=True)
    with pytest.raises(CertificationUndecided):
        check_proposal("benefit", verdict="approve", reason=None, obstacles=[], ready=False)
    with pytest.raises(DecisionObstructed):
        check_proposal("certification", verdict="certify", reason=None, obstacles=failed, ready=True)
    with pytest.raises(VerdictUnknown):
        check_proposal("benefit", verdict="certify", reason=None, obstacles=[], ready=True)
