"""The judgement at the end: `huanquan verify --at-rest`, and the drill's own books, which the platform cannot know."""

import asyncio
import json
from collections import Counter

from deploy.engine import SERVICES
from deploy.sample.portal import states_of
from libs.common.service import LEADER_LOCK
from services.audit.anchors import last_anchor
from tests.faults.load import Load
from tests.faults.system import System

_LEADERS = """
    SELECT count(*) FROM pg_locks JOIN pg_database ON oid = database
     WHERE datname = $1 AND locktype = 'advisory' AND granted AND classid = 0 AND objid = $2
"""
_PAID = """
    SELECT o.id::text AS id, o.state, o.public_fen, array_agg(l.reference) AS refs
      FROM payout_order AS o JOIN batch_line AS l ON l.order_id = o.id GROUP BY o.id
"""


async def verified(system: System) -> tuple[list[dict[str, object]], list[str]]:
    """What `huanquan verify --at-rest` finds, and which of it is violated."""
    code, printed = await system.command("verify", "--at-rest", "--json", str(system.folder / "verify.json"))
    file = system.folder / "verify.json"
    if code not in {0, 1} or not file.exists():
        return [], [f"huanquan verify ended with {code}: {printed.strip()}"]
    findings = json.loads(file.read_text())
    return findings, [
        f"verify: {f['name']}: {f['violations']}, first {f['first']}" for f in findings if f["violations"]
    ]


async def acknowledged(load: Load) -> list[str]:
    """What was acknowledged is there and nothing else, every application came to its end, every command is known, and
    answered again as it was."""
    states = await states_of(load.supervisor)
    filings = load.portal.filings
    ours = filings.applications()
    forgotten = [*await load.answers.forgotten(load.system), *await load.answers.again(load.at.http)]
    missing = [f"application {each} was acknowledged and is not there" for each in sorted(ours - states.keys())]
    strange = [f"application {each} was filed by nobody" for each in sorted(states.keys() - ours)]
    return [*forgotten, *missing, *strange, *filings.ends(states)]


async def as_the_bank_says(load: Load) -> list[str]:
    """Each settled order was credited once by the bank, no other was, and no payment came to the bank twice, or with
    another sum than its order's."""
    bank = load.bank
    found = [f"payment {ref} came to the bank {n} times" for ref, n in bank.received.items() if n > 1]
    connection = await load.system.postgres.connect("finance")
    try:
        rows = await connection.fetch(_PAID)
    finally:
        await connection.close()
    known: Counter[str] = Counter()
    for row in rows:
        known.update(row["refs"])
        credited = sum(bank.credited[ref] for ref in row["refs"])
        if credited != (row["state"] == "settled"):
            found.append(f"order {row['id']} is {row['state']}, the bank credited it {credited} times")
        if (sums := {bank.sums.get(ref, row["public_fen"]) for ref in row["refs"]}) != {row["public_fen"]}:
            found.append(f"order {row['id']} is of {row['public_fen']} fen, the bank was told to pay {sums}")
    found += [f"payment {ref} is known to the bank alone" for ref in bank.received if ref not in known]
    found += [f"payment {ref} never came to the bank" for ref in known if ref not in bank.received]
    return found


async def led(system: System) -> list[str]:
    """Each service has one leader."""
    connection = await system.postgres.connect()
    try:
        leaders = {service: await connection.fetchval(_LEADERS, service, LEADER_LOCK) for service in SERVICES}
    finally:
        await connection.close()
    return [f"{service} has {number} leaders" for service, number in leaders.items() if number != 1]


async def chained(system: System) -> int:
    """How far the trail goes."""
    connection = await system.postgres.connect("audit")
    try:
        return int(await connection.fetchval("SELECT coalesce(max(seq), 0) FROM entry"))
    finally:
        await connection.close()


async def anchored(system: System, seq: int) -> bool:
    """Whether the trail has an anchor there or behind."""
    last = await asyncio.to_thread(last_anchor, system.home)
    return last is not None and last.seq >= seq
