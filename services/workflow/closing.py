"""The end of items and cases: when every item has its result, the case ends and its results are filed."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Literal, cast
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.calendar import local_date
from libs.common.events import ApplicationClosed, ItemResult
from services.workflow.access import policy_of
from services.workflow.archive import file_results
from services.workflow.domain import TRANSITIONS, CaseState, ItemState, case_end
from services.workflow.history import Entry, record

_ITEMS = text("""
    SELECT id, application, state, reason, decided_on FROM item
     WHERE application = ANY(CAST(:applications AS uuid[])) ORDER BY application, position
""")
_END = text("""
    UPDATE cases SET state = r.state, closed_on = :today
      FROM unnest(CAST(:applications AS uuid[]), CAST(:states AS text[])) AS r (application, state)
     WHERE cases.application = r.application
""")


async def close_finished(
    tx: AsyncConnection, held: Mapping[UUID, Row[Any]], *, now: datetime
) -> list[ApplicationClosed]:
    """End those of the locked cases whose items have all ended; the caller emits what this returns."""
    going = [application for application, case in held.items() if case.state == CaseState.IN_PROGRESS]
    actions = {}
    for application, items in (await _items(tx, going)).items():
        action = case_end([ItemState(each.state) for each in items])
        if action is not None:
            actions[application] = action
    return await end_cases(tx, held, actions, now=now)


async def end_cases(
    tx: AsyncConnection, held: Mapping[UUID, Row[Any]], actions: Mapping[UUID, str], *, now: datetime
) -> list[ApplicationClosed]:
    """End locked cases by their transitions (application → action), whose items have all ended."""
    if not actions:
        return []
    states = {each: TRANSITIONS[CaseState(held[each].state), action] for each, action in actions.items()}
    today = local_date(now)
    parameters = {"applications": list(states), "states": list(states.values()), "today": today}
    await tx.execute(_END, parameters)
    await file_results(tx, list(states))
    await record(tx, [Entry(each, "case_ended", detail={"state": state}) for each, state in states.items()], at=now)
    items = await _items(tx, list(states))
    return [
        ApplicationClosed(
            policy=policy_of(held[each]),
            application=each,
            state=cast("Literal['closed', 'refused', 'withdrawn', 'lapsed']", state.value),
            closed_on=today,
            items=tuple(
                ItemResult(item=i.id, result=i.state, reason=i.reason, decided_on=i.decided_on) for i in items[each]
            ),
        )
        for each, state in states.items()
    ]


async def _items(tx: AsyncConnection, applications: Sequence[UUID]) -> dict[UUID, list[Row[Any]]]:
    rows = (await tx.execute(_ITEMS, {"applications": list(applications)})).all()
    return {key: list(group) for key, group in groupby(rows, key=lambda row: row.application)}
