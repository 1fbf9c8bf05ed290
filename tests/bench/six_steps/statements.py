"""The six steps of a case, and the SQL of one step: the same for the product, the limit and the peers.

Each step changes one case row and appends one history and one outbox row. Without SQLAlchemy or the product, for the
peers have an environment of their own.
"""

import os
import time
from uuid import UUID

CLIENTS = 32
SECONDS = 3.0
ACTOR = "talent_office/officer-1"

STEPS = (  # action, state before, state after
    ("open", "", "opened"),
    ("assign", "opened", "assigned"),
    ("complete", "assigned", "completed"),
    ("certify", "completed", "certified"),
    ("order", "certified", "ordered"),
    ("settle", "ordered", "settled"),
)
OPEN = "INSERT INTO cases (id, state) VALUES (:case, :state)"
MOVE = """
    UPDATE cases SET state = :state, version = version + 1, changed_at = clock_timestamp()
     WHERE id = :case AND state = :before
"""
TELL = "INSERT INTO history (case_id, action, state, actor) VALUES (:case, :action, :state, :actor)"
APPEND = """
    WITH told AS (
        INSERT INTO outbox (event_id, topic, key, type, time, traceparent, value)
        VALUES (:event, :topic, :key, :type, CAST(clock_timestamp() AS text), :trace, :body) RETURNING id)
    INSERT INTO unpublished (id) SELECT id FROM told
"""

WAITING = "INSERT INTO unpublished (id) SELECT id FROM appended"


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562), as the product's and `uuidv7()` of PostgreSQL's: rows stand in the order of their making."""
    random = int.from_bytes(os.urandom(10), "big")
    return UUID(int=(time.time_ns() // 1_000_000) << 80 | 7 << 76 | 2 << 62 | random & ~(0xF << 76 | 3 << 62))


# The same in one statement, as the product writes them; what is appended takes the case from the row that changed.
RETURNING = " RETURNING id"
TELL_CHANGED = """
    INSERT INTO history (case_id, action, state, actor)
    SELECT id, CAST(:action AS text), CAST(:state AS text), CAST(:actor AS text) FROM changed
"""
APPEND_CHANGED = """
    INSERT INTO outbox (event_id, topic, key, type, time, traceparent, value)
    SELECT :event, :topic, CAST(id AS text), :type, CAST(clock_timestamp() AS text), :trace, :body FROM changed
    RETURNING id
"""
