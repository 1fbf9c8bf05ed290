"""The six steps on the product's own machinery: tables beside the outbox, and operations that take `tx` first."""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Identity, Index, Integer, Table, Text, func, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.change import Write, change
from libs.common.db import metadata as make_metadata
from libs.common.events import (
    AcceptedItem,
    ApplicationAccepted,
    DeptAssigned,
    DeptCompleted,
    Event,
    PayoutOrdered,
    PayoutSettled,
    TalentCertified,
)
from libs.common.migration import APPEND_ONLY
from libs.common.policy.identity import PackIdentity
from tests.bench.six_steps.statements import ACTOR, MOVE, OPEN, RETURNING, STEPS, TELL_CHANGED

PACK = PackIdentity(city="bench", version="1", sha256="0" * 64)
DAY = date(2026, 3, 2)
TREASURY = "410500"

metadata = make_metadata()
_now = func.clock_timestamp()
Table(
    "cases",
    metadata,
    Column("id", postgresql.UUID, primary_key=True),
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=_now),
)
Table(
    "history",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("case_id", postgresql.UUID, ForeignKey("cases.id"), nullable=False),
    Column("action", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=_now),
    Index("ix_history_case_id", "case_id", "id"),
    info=APPEND_ONLY,
)

_OPEN, _MOVE, _TELL = text(OPEN + RETURNING), text(MOVE + RETURNING), text(TELL_CHANGED)
_OPEN_ALL = text("""
    INSERT INTO cases (id, state) SELECT id, :state FROM unnest(CAST(:cases AS uuid[])) AS r (id) RETURNING id
""")
_MOVE_ALL = text("""
    UPDATE cases SET state = :state, version = version + 1, changed_at = clock_timestamp()
     WHERE id = ANY(CAST(:cases AS uuid[])) AND state = :before RETURNING id
""")


async def step(tx: AsyncConnection, number: int, case: UUID) -> None:
    """One step of one case, in one statement that is a transaction."""
    _, before, state = STEPS[number]
    opened = Write(_OPEN, {"case": case, "state": state})
    moved = Write(_MOVE, {"case": case, "state": state, "before": before})
    await _change(tx, moved if before else opened, number, [case])


async def step_all(tx: AsyncConnection, number: int, cases: Sequence[UUID]) -> None:
    """One step of many cases, as a handler takes it."""
    _, before, state = STEPS[number]
    opened = Write(_OPEN_ALL, {"cases": cases, "state": state})
    moved = Write(_MOVE_ALL, {"cases": cases, "state": state, "before": before})
    await _change(tx, moved if before else opened, number, cases)


async def _change(tx: AsyncConnection, write: Write, number: int, cases: Sequence[UUID]) -> None:
    action, _, state = STEPS[number]
    history = Write(_TELL, {"action": action, "state": state, "actor": ACTOR})
    changed = await change(tx, write, history, events=[told(number, case) for case in cases])
    if changed != len(cases):
        raise RuntimeError(f"{len(cases) - changed} cases were not as the step found them")


def told(number: int, case: UUID) -> Event:
    """The event of a step: the product's own."""
    return _EVENTS[number](case)


def _accepted(case: UUID) -> Event:
    return ApplicationAccepted(
        policy=PACK,
        application=case,
        case_no="AY-2026-00000001-0",
        accepted_on=DAY,
        treasury=TREASURY,
        employer=case,
        employer_kind="enterprise",
        beneficiary=case,
        applicant=case,
        payee_account=case,
        items=(AcceptedItem(item=case, code="certification", kind="certification", category="A"),),
    )


def _assigned(case: UUID) -> Event:
    return DeptAssigned(
        policy=PACK, application=case, task=case, department="education", treasury=TREASURY, item=case, due_on=DAY
    )


def _completed(case: UUID) -> Event:
    return DeptCompleted(
        policy=PACK,
        application=case,
        task=case,
        department="education",
        treasury=TREASURY,
        item=case,
        result="passed",
        completed_on=DAY,
    )


def _certified(case: UUID) -> Event:
    return TalentCertified(
        policy=PACK,
        application=case,
        item=case,
        certification=case,
        number="RC-2026-000001",
        category="A",
        beneficiary=case,
        employer=case,
        employer_kind="enterprise",
        treasury=TREASURY,
        decided_on=DAY,
        valid_to=DAY,
    )


def _ordered(case: UUID) -> Event:
    return PayoutOrdered(
        policy=PACK,
        application=case,
        order=case,
        item=case,
        benefit="living_allowance",
        instalment=1,
        treasury=TREASURY,
        fen=1_000_000,
        due_on=DAY,
        state="due",
    )


def _settled(case: UUID) -> Event:
    return PayoutSettled(
        policy=PACK,
        application=case,
        order=case,
        item=case,
        benefit="living_allowance",
        instalment=1,
        treasury=TREASURY,
        fen=1_000_000,
        shares={"410500": 500_000, "410522": 500_000},
        due_on=DAY,
        settled_on=DAY,
    )


_EVENTS = (_accepted, _assigned, _completed, _certified, _ordered, _settled)
