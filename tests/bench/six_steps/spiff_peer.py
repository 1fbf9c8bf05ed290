"""Contender: the same case on SpiffWorkflow, as its documentation has it.

One BPMN process of six user tasks. SpiffWorkflow keeps nothing by itself; its documentation's example application
stores the specification once; who opens an instance reads it with the specification, and what became of it is written,
both by `BpmnWorkflowSerializer`. So does this at each step, in the transaction that changes the case's rows: the next
step is another person's, in whatever process the request comes to. As a second contender, `kept`, with the
specification in memory all the time, as one would tune it. In favour of both:

- One statement reads instance and specification; the example application also asks what depends on them.
- Two processes, for one interpreter lock would leave a core idle; four threads each, for the engine is pure Python and
  more of them only hand the lock around.
- psycopg with prepared statements, one connection a thread, rows by the three statements that `pgbench` has too, and
  an event costs nothing to build.
"""

import re
import threading
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb
from SpiffWorkflow import TaskState
from SpiffWorkflow.bpmn import BpmnWorkflow
from SpiffWorkflow.bpmn.parser import BpmnParser
from SpiffWorkflow.bpmn.serializer import DEFAULT_CONFIG, BpmnWorkflowSerializer
from SpiffWorkflow.bpmn.serializer.default import BpmnWorkflowConverter

from tests.bench.six_steps.statements import ACTOR, APPEND, MOVE, OPEN, SECONDS, STEPS, TELL, new_id
from tests.bench.worker import ready, serve

MODEL = Path(__file__).with_name("six_steps.bpmn")
TABLES = """
    CREATE TABLE IF NOT EXISTS workflow_spec (id uuid PRIMARY KEY, serialization jsonb NOT NULL);
    CREATE TABLE IF NOT EXISTS workflow (
        id uuid PRIMARY KEY, workflow_spec_id uuid NOT NULL REFERENCES workflow_spec, serialization jsonb NOT NULL);
"""


def _percent(sql: str) -> str:
    return re.sub(r":([a-z]+)", r"%(\1)s", sql)


_OPEN, _MOVE, _TELL, _APPEND = map(_percent, (OPEN, MOVE, TELL, APPEND))
_CREATE = "INSERT INTO workflow (id, workflow_spec_id, serialization) VALUES (%s, %s, %s)"
_SPEC = "SELECT serialization FROM workflow_spec WHERE id = %s"
_READ = "SELECT serialization FROM workflow WHERE id = %s FOR UPDATE"
_READ_WITH_SPEC = """
    SELECT w.serialization || jsonb_build_object('spec', s.serialization)
      FROM workflow AS w JOIN workflow_spec AS s ON s.id = w.workflow_spec_id
     WHERE w.id = %s FOR UPDATE OF w
"""
_UPDATE = "UPDATE workflow SET serialization = %s WHERE id = %s"


class WithoutSpec(BpmnWorkflowConverter):  # type: ignore[misc]  # SpiffWorkflow publishes no types
    """An instance without its specification, which is stored once, like the example application's converter."""

    spec: Any = None

    def to_dict(self, workflow: BpmnWorkflow) -> dict[str, Any]:
        """What changes from step to step."""
        made: dict[str, Any] = super(BpmnWorkflowConverter, self).to_dict(workflow)
        return made | {"bpmn_events": self.registry.convert(workflow.bpmn_events), "subprocesses": {}}

    def from_dict(self, stored: dict[str, Any]) -> BpmnWorkflow:
        """The instance, on the specification that was read with it or is kept in memory."""
        return super().from_dict({"spec": self.spec} | stored)


class Client:
    """One thread's connection and what it has done."""

    def __init__(self, url: str, kept: Any, spec_id: UUID, events: list[list[str]]) -> None:
        self.connection = psycopg.connect(url, prepare_threshold=1)
        self.kept, self.spec_id, self.events = kept, spec_id, events
        WithoutSpec.spec = kept
        registry = BpmnWorkflowSerializer.configure({**DEFAULT_CONFIG, BpmnWorkflow: WithoutSpec})
        self.serializer = BpmnWorkflowSerializer(registry)
        self.taken = 0

    def run(self, ends_at: float) -> None:
        """One case after another."""
        self.taken = 0
        while time.perf_counter() < ends_at:
            case = new_id()
            for number in range(len(STEPS)):
                with self.connection.transaction(), self.connection.cursor() as cursor:
                    self._step(cursor, number, case)
            self.taken += len(STEPS)

    def _step(self, cursor: Any, number: int, case: UUID) -> None:
        action, before, state = STEPS[number]
        topic, kind, trace, body = self.events[number]
        workflow = self._read(cursor, case) if before else self._begun(cursor)
        workflow.get_next_task(state=TaskState.READY, manual=True).run()
        _run_engine_steps(workflow)
        instance = Jsonb(self.serializer.to_dict(workflow))
        cursor.execute(_MOVE if before else _OPEN, {"case": case, "state": state, "before": before})
        cursor.execute(_TELL, {"case": case, "action": action, "state": state, "actor": ACTOR})
        event = {
            "event": new_id(),
            "topic": topic,
            "key": str(case),
            "type": kind,
            "trace": trace,
            "body": body.encode(),
        }
        cursor.execute(_APPEND, event)
        if before:
            cursor.execute(_UPDATE, (instance, case))
        else:
            cursor.execute(_CREATE, (case, self.spec_id, instance))

    def _begun(self, cursor: Any) -> BpmnWorkflow:
        workflow = BpmnWorkflow(self.kept or self._restored(cursor, _SPEC, self.spec_id))
        _run_engine_steps(workflow)
        return workflow

    def _read(self, cursor: Any, case: UUID) -> BpmnWorkflow:
        return self._restored(cursor, _READ if self.kept else _READ_WITH_SPEC, case)

    def _restored(self, cursor: Any, sql: str, key: UUID) -> Any:
        return self.serializer.from_dict(cursor.execute(sql, (key,)).fetchone()[0])


def _run_engine_steps(workflow: BpmnWorkflow) -> None:
    while (task := workflow.get_next_task(state=TaskState.READY, manual=False)) is not None:
        task.run()


def work(*, url: str, clients: int, events: list[list[str]], kept: bool) -> dict[str, float]:
    """Take cases through their steps with so many threads; `events` holds what each step tells; the specification is
    `kept` in memory or read anew at each step."""
    parser = BpmnParser()
    parser.add_bpmn_file(str(MODEL))
    spec, spec_id = parser.get_spec("six_steps"), new_id()
    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(1)")
        connection.execute(TABLES)
        stored = Jsonb(BpmnWorkflowSerializer().to_dict(spec))
        connection.execute("INSERT INTO workflow_spec (id, serialization) VALUES (%s, %s)", (spec_id, stored))
    each = [Client(url, spec if kept else None, spec_id, events) for _ in range(clients)]
    _together(each, 1.0)  # statements are prepared
    ready()
    own, began = time.process_time(), time.perf_counter()
    _together(each, SECONDS)
    took, own = time.perf_counter() - began, time.process_time() - own
    taken = sum(client.taken for client in each)
    return {"steps/s": taken / took, "own_us": own / taken * 1e6}


def _together(clients: list[Client], seconds: float) -> None:
    ends_at = time.perf_counter() + seconds
    threads = [threading.Thread(target=client.run, args=(ends_at,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    serve(work)
