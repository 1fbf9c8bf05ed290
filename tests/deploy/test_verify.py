"""`huanquan verify`: each invariant finds its own kind of damage and names the record, on a system that runs.

Damage is done behind the services' backs in a transaction that is rolled back: the look sees it, they do not.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from deploy import verify
from deploy.engine import SERVICES
from deploy.local import Local
from deploy.verify.between import BETWEEN
from deploy.verify.bus import Walk, offsets_in_log, progress, walk_slot
from deploy.verify.lag import measured
from deploy.verify.looks import Connections, Finding, Look, Scope, Tally, kept_words, told_words
from deploy.verify.within import AT_REST, WITHIN
from deploy.verify.worked_out import worked_out
from libs.common.bus.postgres import PostgresBus
from libs.common.crypto import Vault
from libs.common.db import connect
from libs.common.events import EmployerStruck
from libs.common.service import LEADER_NAME
from services.intake.notices import NOTICE_END
from tests.common.packs import anyang
from tests.conftest import System
from tests.deploy.conftest import as_superuser
from tests.deploy.test_cli import huanquan

LOOKS: dict[str, Look] = {look.name: look for look in (*BETWEEN, *WITHIN, *AT_REST)}


@dataclass(frozen=True)
class Damage:
    """Statements on one service's tables; the last one gives what names the broken record."""

    to: str
    service: str
    statements: tuple[str, ...]


def damage(to: str, service: str, *statements: str) -> Damage:
    return Damage(to, service, statements)


A_FLAT = (
    """INSERT INTO eligibility (id, application, benefit, kind, number, certification, category, beneficiary, treasury,
                                city_treasury, accepted_on, decided_on, policy_city, policy_version, policy_sha256)
       SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid, gen_random_uuid(), 'talent_flat', 'transitional',
              'n' || n, 'c', 'B', gen_random_uuid(), '410522', '410500', now(), now(), 'anyang', '1', 'x'
         FROM generate_series(1, 2) AS n""",
    """INSERT INTO hold (id, flat, eligibility, state, held_at, held_until, held_by, changed_at)
       SELECT id, id, id, 'held', now(), now() + interval '1 d', 'x', now() FROM eligibility""",
)
AN_EVENT = """
    INSERT INTO outbox (event_id, topic, key, type, time, traceparent, value, created_at)
    VALUES (gen_random_uuid(), 'dept.assigned', 'k', 'DeptAssigned', '', '', '{value}', {at})
    RETURNING event_id::text
"""
WAITS = "INSERT INTO unpublished (id) SELECT max(id) FROM outbox"
AGAIN = """
    INSERT INTO outbox (event_id, topic, key, type, time, traceparent, value)
    SELECT gen_random_uuid(), topic, key, type, time, traceparent, value FROM outbox WHERE type = '{type}' LIMIT 1
    RETURNING '{type}'
"""
A_NOTICE = """
    INSERT INTO public_notice (id, application, item, proposed_at, proposed_by, category, opened_on, last_day,
                               opened_by, opened_at)
    SELECT '00000000-0000-0000-0000-000000000001', i.application, i.id, i.proposed_at, i.proposed_by,
           c.category, c.decided_on - 9, {last_day}, 'x', now()
      FROM certification AS c JOIN item AS i ON i.id = c.item
    RETURNING item::text
"""
AN_OBJECTION = """
    INSERT INTO objection (id, notice, received_on, matter, recorded_by, recorded_at)
    SELECT id, id, opened_on, 'x', 'x', now() FROM public_notice WHERE id = '00000000-0000-0000-0000-000000000001'
"""
UPHELD = """
    INSERT INTO objection_finding (objection, upheld, finding, concluded_on, recorded_by, recorded_at)
    VALUES ('00000000-0000-0000-0000-000000000001', true, 'x', now(), 'x', now())
"""
CLAIMING = """
    SELECT i.id::text FROM application_item AS i JOIN item_result AS r ON r.item = i.id
     WHERE i.kind IN ('certification', 'benefit') AND r.result = 'done'
"""
CERTIFIED_ITEM = "SELECT item::text FROM certification"
UNTOLD = "UPDATE outbox SET type = '' WHERE type = '{type}' RETURNING '{type}'"

LATER = "every later instalment has its order, or the day of it, or waits for its review"
NEEDS_REVIEW = "UPDATE instalment SET review_from = '2026-01-01' WHERE number > 1"
NO_LONGER_DUE = "DELETE FROM due WHERE kind = 'instalment.order' AND key LIKE '%/2' RETURNING key"

DAMAGES = (
    # between services: lost, altered, out of nothing
    damage(
        "every accepted application has its case, as it was accepted",
        "workflow",
        "DELETE FROM cases RETURNING application::text",
    ),
    damage(
        "every accepted application has its case, as it was accepted",
        "workflow",
        "UPDATE cases SET sha256 = 'another' RETURNING application::text",
    ),
    damage(
        "every accepted application has its case, as it was accepted",
        "intake",
        "UPDATE application SET state = 'withdrawn', accepted_on = NULL RETURNING id::text",
    ),
    damage(
        "every item of a case is the one that was filed", "workflow", "UPDATE item SET code = 'x' RETURNING id::text"
    ),
    damage(
        "every task and its result are known to intake",
        "intake",
        "DELETE FROM task_holder WHERE task = (SELECT min(task::text)::uuid FROM task_holder) RETURNING task::text",
    ),
    damage(
        "every task and its result are known to intake",
        "workflow",
        "UPDATE task SET result = 'failed', reason = 'x' WHERE feed_no = 1 RETURNING id::text",
    ),
    damage(
        "every task has its clock in supervision",
        "audit",
        "DELETE FROM clock WHERE kind = 'task' RETURNING ''",
    ),
    damage("every end of a case is known to intake", "intake", "DELETE FROM case_end RETURNING application::text"),
    damage(
        "every case has its days in supervision",
        "audit",
        "UPDATE case_clock SET closed_on = NULL RETURNING application::text",
    ),
    damage(
        "every result of an item is known to intake", "intake", "UPDATE item_result SET result = 'refused' RETURNING ''"
    ),
    damage(
        "every number of a decision is known to intake", "intake", "UPDATE item_result SET number = 'RD0' RETURNING ''"
    ),
    damage(
        "every approved benefit is an entitlement to money or to a flat",
        "finance",
        "DELETE FROM entitlement RETURNING item::text",
    ),
    damage(
        "every approved benefit is an entitlement to money or to a flat",
        "housing",
        *A_FLAT,
        "SELECT min(id::text) FROM eligibility",
    ),
    damage(
        "every entitlement is of whom its application names",
        "finance",
        "UPDATE entitlement SET beneficiary = item RETURNING 'entitlement ' || id",
    ),
    damage(
        "every changed account is known to finance",
        "finance",
        """INSERT INTO payee_change (application, item, beneficiary, payee_account, accepted_on, decided_on)
           SELECT gen_random_uuid(), gen_random_uuid(), id, gen_random_uuid(), now(), now() FROM beneficiary
           RETURNING item::text""",
    ),
    damage(
        "finance knows where every employer belongs",
        "finance",
        "UPDATE employer_affiliation SET affiliations = '[]' RETURNING 'employer ' || employer",
    ),
    damage(
        "finance knows where every employer belongs",
        "intake",
        "UPDATE employer_affiliation SET valid_to = '2026-06-30' RETURNING 'employer ' || employer",
    ),
    *(
        damage(
            "every statement in a directory of employers is in the trail as it was made",
            "intake",
            f"{change} RETURNING 'statement ' || id",
        )
        for change in (
            "DELETE FROM directory_entry",
            "UPDATE directory_entry SET document = document || ' '",
            "UPDATE directory_entry SET valid_to = '2026-12-31' WHERE listed",
            "UPDATE directory_entry SET listed = NOT listed",
            """INSERT INTO directory_entry (city, directory, credit_code, name, listed, valid_from, document, "by")
               VALUES ('anyang', 'leading_enterprise', '91410522MA0000001E', 'x', true, '2026-03-01', 'x', 'x')""",
        )
    ),
    *(
        damage(
            "every statement in a directory of employers is in the trail as it was made",
            "audit",
            f"""{change}
                RETURNING 'statement ' || substring(encode(payload, 'escape') FROM '"statement":([0-9]+)')""",
        )
        for change in (
            "DELETE FROM entry WHERE type = 'EmployerStruck'",
            "UPDATE entry SET type = 'EmployerStruck' WHERE type = 'EmployerListed'",
            """UPDATE entry
                  SET payload = convert_to(replace(convert_from(payload, 'UTF8'), '5 号', '6 号'), 'UTF8')
                WHERE type = 'EmployerListed'""",
        )
    ),
    damage(
        "every payout order goes to an account of its beneficiary",
        "finance",
        "UPDATE payout_order SET payee_account = beneficiary RETURNING 'order ' || id",
    ),
    damage(
        "every payout order is known to intake, to the fen",
        "intake",
        'UPDATE payment SET fen = fen + 1 RETURNING "order"::text',
    ),
    damage(
        "every payout order is known to intake, to the fen",
        "intake",
        'UPDATE payment SET settled_on = NULL RETURNING "order"::text',
    ),
    damage(
        "every order sent to the bank is known to intake",
        "intake",
        'UPDATE payment SET sent_at = NULL RETURNING "order"::text',
    ),
    damage(
        "every payout order has its clock in supervision",
        "audit",
        "UPDATE clock SET ended_on = NULL WHERE kind = 'payout' RETURNING record::text",
    ),
    damage(
        "every step that others tell of stands in the timeline once",
        "intake",
        "DELETE FROM timeline WHERE code = 'PayoutSettled' RETURNING event_id::text",
    ),
    *(
        damage("every public notice is known to intake", service, f"{change} RETURNING {record}::text")
        for service, record, change in (
            ("workflow", "id", "UPDATE public_notice SET last_day = last_day + 1"),
            ("workflow", "id", "DELETE FROM public_notice"),
            ("intake", "notice", "UPDATE public_notice SET withdrawn_on = NULL"),
        )
    ),
    *(
        damage("every objection is known to intake", service, f"{change} RETURNING objection::text")
        for service, change in (
            ("workflow", "UPDATE objection_finding SET upheld = NOT upheld"),
            ("workflow", "DELETE FROM objection_finding"),
            ("intake", "UPDATE objection SET received_on = received_on - 1"),
        )
    ),
    *(
        damage("nobody is certified while on public notice, or against an objection", "workflow", *statements)
        for statements in (
            (A_NOTICE.format(last_day="c.decided_on"),),
            (A_NOTICE.format(last_day="c.decided_on - 1"), AN_OBJECTION),
            (A_NOTICE.format(last_day="c.decided_on - 1"), AN_OBJECTION, UPHELD, CERTIFIED_ITEM),
        )
    ),
    # the days, and what else stands beside what was told
    *(
        damage("every task and its result are known to intake", "intake", f"UPDATE task_holder SET {what}")  # noqa: S608 - damage of our own
        for what in ("due_on = due_on + 1", "due_on = NULL")
    ),
    *(
        damage("every task has its clock in supervision", "audit", f"UPDATE clock SET {what} WHERE kind = 'task'")  # noqa: S608 - damage of our own
        for what in ("due_on = due_on + 1", "opened_on = opened_on - 1", "moved_due_on = due_on")
    ),
    *(
        damage("every payout order has its clock in supervision", "audit", f"{change} RETURNING record::text")
        for change in (
            "UPDATE clock SET due_on = due_on + 1 WHERE kind = 'payout'",
            "UPDATE clock SET opened_on = opened_on - 1 WHERE kind = 'payout'",
        )
    ),
    *(
        damage("every number of a decision is known to intake", service, f"{change} RETURNING item::text")
        for service, change in (
            ("intake", "UPDATE item_result SET valid_to = valid_to + 1 WHERE valid_to IS NOT NULL"),
            ("workflow", "UPDATE certification SET valid_to = valid_to + 1"),
        )
    ),
    *(
        damage(
            "every payout order is known to intake, to the fen",
            "intake",
            f'UPDATE payment SET {what} RETURNING "order"::text',  # noqa: S608 - damage of our own
        )
        for what in ("due_on = due_on + 1", "benefit = 'x'")
    ),
    *(
        damage(
            "every published event is in the trail once, unaltered, and nothing else is",
            "audit",
            f"UPDATE entry SET {what} WHERE seq = 3 RETURNING event_id::text",  # noqa: S608 - damage of our own
        )
        for what in (
            "time = '2020-01-01T00:00:00Z'",
            """headers = replace(headers, '"ce_time":"20', '"ce_time":"19')""",
            """headers = replace(headers, '"ce_traceparent":"00', '"ce_traceparent":"01')""",
            "headers = ''",
        )
    ),
    damage(
        "every published event is in the trail once, unaltered, and nothing else is",
        "workflow",
        "UPDATE outbox SET time = '' WHERE type = 'DeptAssigned' RETURNING event_id::text",
    ),
    damage(
        "every certification and approval is of whom its case is for",
        "workflow",
        "UPDATE certification SET beneficiary = item RETURNING number",
    ),
    damage(
        "every lease is told of with its days",
        "housing",
        *A_FLAT,
        """INSERT INTO lease (id, hold, from_day, to_day, signed_at, signed_by)
           SELECT id, id, '2026-01-01', '2026-12-31', now(), 'x' FROM hold RETURNING id::text""",
    ),
    damage("every approved benefit is claimed once", "workflow", "DELETE FROM claim RETURNING item::text"),
    damage(
        "every result of an ended case is in the talent record",
        "workflow",
        "DELETE FROM record_entry RETURNING item::text",
    ),
    damage(
        "whoever was accepted claims what was asked for",
        "intake",
        "DELETE FROM claim",
        CLAIMING,
    ),
    # marked before it was published, or published by nobody
    damage(
        "every published event is in the trail once, unaltered, and nothing else is",
        "workflow",
        AN_EVENT.format(value="", at="now()"),
    ),
    damage(
        "every published event is in the trail once, unaltered, and nothing else is",
        "audit",
        "UPDATE entry SET payload = payload || ' '::bytea WHERE seq = 3 RETURNING event_id::text",
    ),
    damage(
        "the events of every key were published in their order",
        "audit",
        """UPDATE entry SET "offset" = -1 WHERE type = 'BenefitApproved' RETURNING event_id::text""",
    ),
    # told twice, or not at all
    *(
        damage(f"what {service} did it told of, once", service, form.format(type=type_))
        for service, type_ in (
            ("intake", "ApplicationAccepted"),
            ("workflow", "DeptAssigned"),
            ("workflow", "TalentCertified"),
            ("finance", "PayoutSettled"),
        )
        for form in (AGAIN, UNTOLD)
    ),
    damage(
        "what housing did it told of, once",
        "housing",
        *A_FLAT,
        """INSERT INTO hold_history (hold, at, move, state, by)
           SELECT id, now(), 'hold', 'held', 'x' FROM hold RETURNING 'FlatHeld'""",
    ),
    damage(
        "every event of intake is a step in the timeline",
        "intake",
        "DELETE FROM timeline WHERE code = 'ApplicationAccepted' RETURNING event_id::text",
    ),
    # nobody watches
    damage(
        "every correction is watched until its last day",
        "intake",
        "UPDATE application SET state = 'correction', accepted_on = NULL, answer_by = now() RETURNING id::text",
    ),
    damage(
        "every promised material is watched until its day",
        "intake",
        "DELETE FROM case_end",
        """INSERT INTO material (id, application, code, evidence, promised_by)
           SELECT gen_random_uuid(), id, 'x', 'promised', now() FROM application RETURNING application::text""",
    ),
    damage(
        "every open task is watched until its limit",
        "workflow",
        "DELETE FROM due",
        "UPDATE task SET state = 'open', result = NULL WHERE feed_no = 1 RETURNING id::text",
    ),
    damage(
        "every unpaid order is watched until its day",
        "finance",
        "DELETE FROM due",
        "UPDATE payout_order SET state = 'unknown', settled_on = NULL RETURNING id::text",
    ),
    damage(LATER, "finance", NO_LONGER_DUE),
    damage(
        LATER,
        "finance",
        NEEDS_REVIEW,
        """INSERT INTO instalment_review (id, entitlement_id, number, verdict, facts, clauses, actor)
           SELECT gen_random_uuid(), entitlement_id, 2, 'pass', '{}', '[]', 'x' FROM instalment WHERE number = 2""",
        NO_LONGER_DUE,
    ),
    damage("every hold and every lease is watched until its end", "housing", *A_FLAT, "SELECT min(id::text) FROM hold"),
    damage(
        "every hold and every lease is watched until its end",
        "housing",
        *A_FLAT,
        "UPDATE hold SET state = 'leased'",
        """INSERT INTO lease (id, hold, from_day, to_day, signed_at, signed_by)
           SELECT id, id, now(), now() + interval '1 year', now(), 'x' FROM hold""",
        """INSERT INTO due (kind, key, at, payload)
           SELECT 'lease.end', hold::text, (to_day + 2)::timestamp AT TIME ZONE 'Asia/Shanghai', '{}' FROM lease""",
        "SELECT min(id::text) FROM hold",
    ),
    damage(
        "every unpaid order is watched until its day",
        "finance",
        "UPDATE payout_order SET state = 'unknown', settled_on = NULL",
        """INSERT INTO due (kind, key, at, payload)
           SELECT 'payout.deadline', id::text, 'infinity', '{}' FROM payout_order
               ON CONFLICT (kind, key) DO UPDATE SET at = excluded.at""",
        "SELECT id::text FROM payout_order",
    ),
    # before its time
    damage(
        "no correction lapsed before its last day was over",
        "intake",
        """UPDATE application SET state = 'lapsed', reason = 'lapsed', accepted_on = NULL, decided_on = now(),
                                  answer_by = now() RETURNING id::text""",
    ),
    damage(
        "no task was said to be late before its limit had passed",
        "workflow",
        """INSERT INTO breach (task, due_on, announced_at)
           SELECT min(id::text)::uuid, now() + interval '1 day', now() FROM task""",
        "SELECT task::text FROM breach",
    ),
    damage(
        "no payment was said to be late before its day was over",
        "finance",
        """INSERT INTO order_history (order_id, action, state, attempt, actor)
           SELECT id, 'breach', state, attempt, 'x' FROM payout_order WHERE due_on >= now() LIMIT 1
           RETURNING order_id::text""",
    ),
    damage(
        "no hold and no lease ended by itself before its time",
        "housing",
        *A_FLAT,
        """INSERT INTO hold_history (hold, at, move, state, by)
           SELECT id, now(), 'expire', 'released', 'ticker' FROM hold""",
        "SELECT min(hold::text) FROM hold_history",
    ),
    damage(
        "no hold and no lease ended by itself before its time",
        "housing",
        *A_FLAT,
        """INSERT INTO lease (id, hold, from_day, to_day, signed_at, signed_by)
           SELECT id, id, now(), now() + interval '1 day', now(), 'x' FROM hold""",
        "INSERT INTO hold_history (hold, at, move, state, by) SELECT id, now(), 'end', 'ended', 'ticker' FROM hold",
        "SELECT min(hold::text) FROM hold_history",
    ),
    # states
    damage(
        "every case is where its items are",
        "workflow",
        "UPDATE cases SET state = 'in_progress', closed_on = NULL RETURNING application::text",
    ),
    damage(
        "every item is where its tasks and its decision are",
        "workflow",
        "UPDATE task SET state = 'open', result = NULL WHERE feed_no = 1 RETURNING item::text",
    ),
    damage(
        "every item is where its tasks and its decision are",
        "workflow",
        "DELETE FROM certification RETURNING item::text",
    ),
    damage(
        "every item is where its tasks and its decision are",
        "workflow",
        "UPDATE item SET verdict = 'refuse' WHERE kind = 'benefit' RETURNING id::text",
    ),
    damage(
        "nothing happened twice in a case",
        "workflow",
        """INSERT INTO history (application, at, action, item, task, detail)
           SELECT application, at, action, item, task, detail FROM history WHERE action = 'case_opened'
           RETURNING application || ' opened'""",
    ),
    damage(
        "nothing happened twice in a case",
        "workflow",
        """INSERT INTO history (application, at, action, detail)
           SELECT application, now(), action, '{}'
             FROM cases, (VALUES ('withdrawn'), ('withdrawal_ignored')) AS a (action)
           RETURNING application || ' withdrawal'""",
    ),
    damage(
        "nobody both proposed a decision and confirmed it, or judged an objection to it",
        "workflow",
        "ALTER TABLE item DROP CONSTRAINT ck_item_four_eyes",
        "UPDATE item SET confirmed_by = proposed_by WHERE kind = 'benefit' RETURNING id::text",
    ),
    damage(
        "nobody both proposed a decision and confirmed it, or judged an objection to it",
        "workflow",
        "UPDATE objection_finding SET recorded_by = 'officer-1'",
        "UPDATE public_notice SET proposed_by = 'officer-1'",
        "SELECT 'objection ' || objection FROM objection_finding",
    ),
    damage(
        "every public notice is watched until it is over",
        "intake",
        f"DELETE FROM due WHERE kind = '{NOTICE_END}' RETURNING key",  # noqa: S608 - a name of our own
    ),
    damage("every hold is where its history and its lease are", "housing", *A_FLAT, "SELECT min(id::text) FROM hold"),
    damage(
        "no flat is given to two at once, and nobody has two for one benefit",
        "housing",
        "DROP INDEX uq_hold_flat_taken",
        *A_FLAT,
        "UPDATE hold SET flat = '00000000-0000-0000-0000-000000000001' RETURNING flat::text",
    ),
    damage(
        "no flat is given to two at once, and nobody has two for one benefit",
        "housing",
        "DROP INDEX uq_hold_eligibility_taken",
        *A_FLAT,
        "UPDATE hold SET eligibility = '00000000-0000-0000-0000-000000000001' RETURNING 'eligibility ' || eligibility",
    ),
    # messaging
    *(
        damage(
            f"what is parked in {service} can be released",
            service,
            """INSERT INTO parked (topic, partition, "offset", key, record_key, headers, value, reason)
               VALUES ('t', 0, 1, 'k', 'k', '{}', '', 'r') RETURNING 't k'""",
        )
        for service in SERVICES
    ),
    damage(
        "what is parked in intake can be released",
        "intake",
        "INSERT INTO parked_key (topic, key, waiting_for) VALUES ('t', 'k', 'Cause:k') RETURNING 't k'",
    ),
    *(
        damage(
            f"{service} publishes the events of a key in order",
            service,
            AN_EVENT.format(value="", at="now()"),
            WAITS,
            AN_EVENT.format(value="", at="now()"),
            "SELECT event_id::text FROM unpublished JOIN outbox USING (id)",
        )
        for service in SERVICES
    ),
    # at rest
    damage(
        "no application waits for a correction",
        "intake",
        "UPDATE application SET state = 'correction', accepted_on = NULL, answer_by = now() RETURNING id::text",
    ),
    damage(
        "no case is in progress",
        "workflow",
        "UPDATE cases SET state = 'in_progress', closed_on = NULL RETURNING application::text",
    ),
    damage(
        "no payout order is under way",
        "finance",
        "UPDATE payout_order SET state = 'due', settled_on = NULL RETURNING id::text",
    ),
)
LED = {f"{service} is led by one process, which holds the lock" for service in SERVICES}


@pytest.fixture
async def bus(paid: tuple[System, str]) -> AsyncIterator[PostgresBus]:
    bus = PostgresBus(Local(paid[0].home).postgres.app_url("bus"))
    yield bus
    await bus.stop()


@asynccontextmanager
async def connected(
    system: System, services: Collection[str] = SERVICES, *, damaged: str = "", statements: Collection[str] = ()
) -> AsyncIterator[tuple[Connections, str]]:
    """Each service's database, one of them with damage done to it as long as this lasts; with what names the record."""
    postgres, broken = Local(system.home).postgres, ""
    async with AsyncExitStack() as stack:
        made: dict[str, AsyncConnection] = {}
        for service in services:
            engine = create_async_engine(postgres.url(service))
            stack.push_async_callback(engine.dispose)
            made[service] = await stack.enter_async_context(engine.connect())
        if damaged:
            await made[damaged].execute(text("SET LOCAL session_replication_role = replica"))  # not even triggers
        for statement in statements:
            done = await made[damaged].execute(text(statement.replace(":", r"\:").replace(r"\:\:", "::")))
            broken = min(done.scalars().all(), default="") if done.returns_rows else broken
        yield made, broken
        for connection in made.values():
            await connection.rollback()


def test_every_invariant_is_tried() -> None:
    assert {each.to for each in DAMAGES} | LED == set(LOOKS)


async def test_every_invariant_holds_on_what_was_done_well(paid: tuple[System, str]) -> None:
    async with connected(paid[0]) as (connections, _):
        assert {
            name: tally.broken
            for name, look in LOOKS.items()
            if (tally := await look.look(connections, Scope())).broken
        } == {}


@pytest.mark.parametrize("done", DAMAGES, ids=lambda done: f"{done.to}, {done.service}")
async def test_each_invariant_finds_its_damage_and_names_the_record(paid: tuple[System, str], done: Damage) -> None:
    look = LOOKS[done.to]
    async with connected(paid[0], look.services, damaged=done.service, statements=done.statements) as (
        connections,
        broken,
    ):
        finding = (await look.look(connections, Scope())).finding(look.name)
    assert finding.violations
    assert finding.first
    assert broken in finding.first


WAITS_TOO_LONG = "UPDATE due SET at = at + interval '60 d' WHERE kind = 'instalment.order' RETURNING key"
NO_POLICY = "UPDATE entitlement SET policy_sha256 = 'x' RETURNING id::text || '/2'"
NOTICED = "every certification was on public notice where its policy requires it"
UNKNOWN_POLICY = "UPDATE cases SET sha256 = 'x' FROM certification AS c WHERE c.application = cases.application"
REQUIRED = """
    UPDATE policy_pack
       SET body = convert_to(replace(convert_from(body, 'UTF8'), 'required: false', 'required: true'), 'UTF8')
"""
FILES = {
    "every bank file is the one that was made": ("payout_batch", "number"),
    "every result file is the one that the bank sent": ("bank_result_file", "number"),
}


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        *(
            (name, f"UPDATE {table} SET {change} RETURNING {record}")  # noqa: S608 - damage of our own
            for name, (table, record) in FILES.items()
            for change in ("sha256 = 'x'", "file = set_byte(file, 40, get_byte(file, 40) # 1)", "file = ''")
        ),
        ("no instalment waits longer than until the day of its order", WAITS_TOO_LONG),
        ("no instalment waits longer than until the day of its order", NO_POLICY),
        (NOTICED, f"{UNKNOWN_POLICY} RETURNING c.item::text"),
        (NOTICED, f"WITH required AS ({REQUIRED}) {CERTIFIED_ITEM}"),
    ],
)
async def test_what_is_worked_out_is_compared_with_what_is_kept(
    paid: tuple[System, str], name: str, statement: str
) -> None:
    current, retired = Local(paid[0].home).settings(paid[0].addresses).vault()
    (look,) = [look for look in worked_out(Vault(current, retired)) if look.name == name]
    async with connected(paid[0]) as (connections, _):
        sound = await look.look(connections, Scope())
    assert (sound.checked > 0, sound.broken) == (True, {})
    [service] = look.services
    async with connected(paid[0], look.services, damaged=service, statements=(statement,)) as (connections, broken):
        finding = (await look.look(connections, Scope())).finding(look.name)
    assert finding.violations
    assert broken in str(finding.first)


async def test_what_was_withheld_on_its_day_is_not_missing(paid: tuple[System, str]) -> None:
    statements = (NEEDS_REVIEW, NO_LONGER_DUE)
    async with connected(paid[0], damaged="finance", statements=statements) as (connections, withheld):
        finding = (await LOOKS[LATER].look(connections, Scope())).finding(LATER)
    assert withheld
    assert (finding.violations, finding.checked > 0) == (0, True)


async def test_an_affiliation_of_ever_and_for_ever_is_the_same_to_intake_and_to_finance(
    paid: tuple[System, str],
) -> None:
    kept = "UPDATE employer_affiliation SET valid_from = '-infinity', valid_to = 'infinity'"
    told = """UPDATE employer_affiliation
                 SET affiliations = jsonb_set(jsonb_set(affiliations, '{0,valid_from}', '"0001-01-01"'),
                                              '{0,valid_to}', '"9999-12-31"')"""
    async with connected(paid[0]) as (connections, _):
        await connections["intake"].execute(text(kept))
        await connections["finance"].execute(text(told))
        tally = await LOOKS["finance knows where every employer belongs"].look(connections, Scope())
    assert (tally.checked, tally.broken) == (1, {})


async def test_a_statement_of_ever_and_for_ever_is_the_same_to_intake_and_in_the_trail(
    paid: tuple[System, str],
) -> None:
    kept = "UPDATE directory_entry SET valid_from = '-infinity', valid_to = 'infinity' WHERE listed"
    told = r"""UPDATE entry
                  SET payload = convert_to(regexp_replace(convert_from(payload, 'UTF8'),
                          '"valid_from"[:]"[^"]*"(.*)"valid_to"[:]null',
                          '"valid_from"\:"0001-01-01"\1"valid_to"\:"9999-12-31"'), 'UTF8')
                WHERE type = 'EmployerListed'"""
    async with connected(paid[0]) as (connections, _):
        await connections["intake"].execute(text(kept))
        await connections["audit"].execute(text(told))
        look = LOOKS["every statement in a directory of employers is in the trail as it was made"]
        tally = await look.look(connections, Scope())
    assert (tally.checked, tally.broken) == (2, {})


@pytest.mark.parametrize("words", ["安人才办〔2026〕5 号", '"', "\\", '\\"甲\\\\', "𠮷·/", '","document":"x'])
async def test_words_are_the_same_in_a_table_and_in_an_event_whatever_stands_in_them(
    paid: tuple[System, str], words: str
) -> None:
    stated = {"statement": 1, "directory": "leading_enterprise", "credit_code": "91410522MA0000001E"}
    event = EmployerStruck(policy=anyang().identity, valid_from="2026-03-01", document=words, **stated)
    query = f"""SELECT {kept_words("words")}, {told_words("document")}
                  FROM (SELECT CAST(:words AS text) AS words, CAST(:value AS bytea) AS value) AS both_"""  # noqa: S608 - parts of our own
    async with connected(paid[0], ["intake"]) as (connections, _):
        found = await connections["intake"].execute(
            text(query), {"words": words, "value": event.model_dump_json().encode()}
        )
        kept, told = found.one()
    assert kept
    assert kept == told


@pytest.mark.parametrize("service", SERVICES)
async def test_two_leaders_of_a_service_are_found_whatever_became_of_the_lock(
    paid: tuple[System, str], service: str
) -> None:
    look = LOOKS[f"{service} is led by one process, which holds the lock"]
    second = await connect(Local(paid[0].home).postgres.app_url(service))
    await second.execute("SELECT set_config('application_name', $1, false)", f"{LEADER_NAME}impostor")
    try:
        async with connected(paid[0]) as (connections, _):
            finding = (await look.look(connections, Scope())).finding(look.name)
    finally:
        await second.close()
    assert (finding.checked, finding.violations) == (2, 2)
    assert LEADER_NAME in str(finding.first)


# -- the bus


@dataclass(frozen=True)
class Lost:
    """Damage to what one service read of a topic, and the words in which it is found."""

    service: str
    topic: str
    statements: tuple[str, ...]
    told: str


@pytest.mark.parametrize(
    "lost",
    [
        Lost(
            "workflow", "application.received", ("DELETE FROM inbox",), "workflow has not taken application.received/"
        ),
        Lost("finance", "talent.certified", ("DELETE FROM inbox",), "finance has not taken talent.certified/"),
        Lost(
            "audit",
            "dept.completed",
            ("DELETE FROM entry WHERE topic = 'dept.completed'",),
            "audit has not chained dept.completed/",
        ),
    ],
    ids=lambda lost: lost.service,
)
async def test_a_record_that_was_read_and_left_no_mark_is_named(
    paid: tuple[System, str], bus: PostgresBus, lost: Lost
) -> None:
    found = await walked(paid[0], bus, lost.topic)
    assert [finding.violations for finding in found] == [0, 0]
    assert all(finding.checked for finding in found)
    found = await walked(paid[0], bus, lost.topic, damaged=lost.service, statements=lost.statements)
    (named,) = [finding.first for finding in found if finding.violations]
    assert str(named).startswith(lost.told)


async def test_what_was_read_is_not_missed_where_it_is_set_aside(paid: tuple[System, str], bus: PostgresBus) -> None:
    parked = """
        INSERT INTO parked (topic, partition, "offset", key, record_key, headers, value, reason)
        SELECT topic, partition, n, 'k', 'k', '{}', '', 'r' FROM consumer_offset, generate_series(0, next - 1) AS n
    """
    found = await walked(
        paid[0], bus, "application.received", damaged="workflow", statements=("DELETE FROM inbox", parked)
    )
    assert [finding.violations for finding in found] == [0, 0]


async def walked(
    system: System, bus: PostgresBus, topic: str, *, damaged: str = "", statements: Collection[str] = ()
) -> list[Finding]:
    async with connected(system, damaged=damaged, statements=statements) as (connections, _):

        @asynccontextmanager
        async def as_they_are(_services: Collection[str]) -> AsyncIterator[Connections]:
            yield connections

        walk = Walk(await progress(connections, bus))
        for slot in walk.made.ends:
            if slot.topic == topic:
                await walk_slot(walk, as_they_are, bus, slot, Scope())
    return walk.findings()


async def test_an_offset_beyond_the_end_of_its_log_is_named(paid: tuple[System, str], bus: PostgresBus) -> None:
    async with connected(paid[0]) as (connections, _):
        assert offsets_in_log(await progress(connections, bus)).violations == 0
    beyond = ("UPDATE consumer_offset SET next = 99999 WHERE topic = 'talent.certified' AND partition = 0",)
    async with connected(paid[0], damaged="finance", statements=beyond) as (connections, _):
        finding = offsets_in_log(await progress(connections, bus))
    assert finding.violations == 1
    assert str(finding.first).startswith("finance goes on in talent.certified/0 at 99999, the log ends at ")


# -- a running system


async def test_the_lag_says_what_waits_and_for_how_long_and_holds_the_watermark_back(
    paid: tuple[System, str], bus: PostgresBus
) -> None:
    an_hour_ago = ("DELETE FROM outbox", AN_EVENT.format(value="", at="now() - interval '1 h'"), WAITS)
    async with connected(paid[0], damaged="workflow", statements=an_hour_ago) as (connections, event):
        lags = await measured(connections, bus, await progress(connections, bus))
    (workflow,) = [lag for lag in lags if lag.service == "workflow"]
    assert (workflow.to_publish.n, workflow.to_read.n) == (1, 0)
    assert timedelta(minutes=59) < datetime.now(UTC) - workflow.since < timedelta(minutes=61)
    to_publish, *_ = workflow.findings(at_rest=False)
    assert (to_publish.checked, to_publish.violations) == (1, 0)
    assert str(to_publish.first).startswith(f"dept.assigned {event}, for 360")
    assert workflow.findings(at_rest=True)[0].violations == 1


async def test_what_a_service_has_not_read_yet_is_counted_from_when_it_was_told(
    paid: tuple[System, str], bus: PostgresBus
) -> None:
    unread = ("UPDATE consumer_offset SET next = 0 WHERE topic = 'talent.certified'",)
    async with connected(paid[0], damaged="finance", statements=unread) as (connections, _):
        lags = await measured(connections, bus, await progress(connections, bus))
    (finance,) = [lag for lag in lags if lag.service == "finance"]
    assert finance.to_read.n == 2
    assert "talent.certified/" in str(finance.to_read.first)
    assert finance.to_read.at is not None
    assert finance.since == finance.to_read.at < datetime.now(UTC)
    assert finance.findings(at_rest=True)[1].violations == 2


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("INSERT INTO parked_key (topic, key, waiting_for) VALUES ('t', 'k', 'Cause:k')", "keys parked"),
        ("INSERT INTO due (kind, key, at, payload) VALUES ('k', '1', now() - interval '1 h', '{}')", "work overdue"),
    ],
)
async def test_what_is_parked_or_overdue_is_behind(
    paid: tuple[System, str], bus: PostgresBus, statement: str, what: str
) -> None:
    async with connected(paid[0], damaged="housing", statements=(statement,)) as (connections, _):
        lags = await measured(connections, bus, await progress(connections, bus))
    found = {finding.name: finding for lag in lags for finding in lag.findings(at_rest=True)}
    assert [name for name, finding in found.items() if finding.violations] == [f"lag of housing: {what}"]


async def test_younger_than_the_watermark_is_not_judged_and_neither_is_what_is_set_aside(
    paid: tuple[System, str],
) -> None:
    system, application = paid
    look = LOOKS["every end of a case is known to intake"]
    lost = f"DELETE FROM case_end WHERE application = '{application}'"  # noqa: S608 - an id of our own
    async with connected(system, damaged="intake", statements=(lost,)) as (connections, _):
        young = await look.look(connections, Scope(until=datetime.now(UTC) - timedelta(days=1)))
        old = await look.look(connections, Scope(until=datetime.now(UTC)))
        aside = await look.look(connections, Scope(aside=frozenset([application])))
    assert [tally.violations for tally in (young, old, aside)] == [0, 1, 0]


def test_what_was_only_on_its_way_at_the_first_look_is_no_violation() -> None:
    first, again = Tally(), Tally()
    for tally, broken in ((first, {"a", "b"}), (again, {"b", "c"})):
        for key in "abcd":
            tally.count(key, f"{key} is broken" if key in broken else None)
    assert first.confirmed(again).finding("x") == Finding("x", 4, 1, "b is broken")
    assert Tally(4, 0, {}).confirmed(again).violations == 0


async def test_a_look_that_does_not_end_is_cut_off_and_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "LOOK_SECONDS", 0.05)

    async def endless() -> Finding:
        await asyncio.sleep(60)
        raise AssertionError

    assert await verify._bounded("x", endless) == Finding("x", 0, 1, "the look was not finished within 0 s")


# -- the command


def test_verify_reports_exits_with_1_and_names_each_broken_record(paid: tuple[System, str], tmp_path: Path) -> None:
    system, file = paid[0], tmp_path / "findings.json"
    assert huanquan(system, "verify", "--at-rest", "--json", str(file)).exit_code == 0
    whole = json.loads(file.read_text())
    assert {finding["violations"] for finding in whole} == {0}
    mends = {
        "finance": (
            "UPDATE entry SET fen = fen {} 1 WHERE id = (SELECT min(id) FROM entry)",
            "SELECT key FROM transfer",
        ),
        "intake": ("UPDATE payment SET fen = fen {} 1", 'SELECT "order"::text FROM payment'),
        "audit": ('UPDATE entry SET "offset" = "offset" {} 1 WHERE seq = 3', "SELECT '3: entry_altered'"),
    }
    broken = [asyncio.run(as_superuser(system, s, name, change.format("+"))) for s, (change, name) in mends.items()]
    try:
        found = huanquan(system, "verify", "--at-rest", "--json", str(file))
    finally:
        for service, (change, name) in mends.items():
            asyncio.run(as_superuser(system, service, name, change.format("-")))
    assert found.exit_code == 1
    named = [finding["first"] for finding in json.loads(file.read_text()) if finding["violations"]]
    assert [record for record in broken if not any(record in first for first in named)] == [], named
    assert [record for record in broken if record not in found.stdout] == []
    assert json.loads(huanquan(system, "verify", "--json", "-").stdout)[0]["name"] == whole[0]["name"]
    assert huanquan(system, "verify").stdout.startswith("judged: what is older than 20")


PAID = "(SELECT a.beneficiary FROM application AS a JOIN payment AS p ON p.application = a.id)"
MERGE = f"""
    WITH surviving AS (INSERT INTO person (ref, sealed) VALUES (gen_random_uuid(), '') RETURNING ref),
         moved AS (UPDATE claim SET person = surviving.ref FROM surviving WHERE person = {PAID})
    UPDATE person SET merged_into = surviving.ref FROM surviving WHERE person.ref = {PAID}
"""  # noqa: S608 - parts of our own
PART = f"""
    UPDATE claim SET person = {PAID} WHERE person = (SELECT ref FROM person WHERE sealed = '');
    UPDATE person SET merged_into = NULL;
    DELETE FROM person WHERE sealed = ''
"""  # noqa: S608 - parts of our own


def test_a_person_merged_since_is_still_whom_the_payment_is_due_to(paid: tuple[System, str]) -> None:
    asyncio.run(as_superuser(paid[0], "intake", "SELECT 1", MERGE))
    try:
        found = huanquan(paid[0], "verify", "--at-rest")
    finally:
        asyncio.run(as_superuser(paid[0], "intake", "SELECT 1", PART))
    assert found.exit_code == 0, found.stdout
