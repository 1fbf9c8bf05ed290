"""Contender: the same case on DBOS Transact, as its documentation has it.

One workflow a case, six transactions of a datasource, each of which commits the case's rows and DBOS's own checkpoint
together ("Transactions & Datasources"). In its favour:

- A case's rows and DBOS's tables are in one database, on one server. It commits twice a step all the same: its
  checkpoint of the transaction with the rows, and then the step's own.
- READ COMMITTED instead of its default SERIALIZABLE: no case is shared, and PostgreSQL does less.
- A connection for every thread in both pools, not asked whether it is alive before each use, and an executor thread
  for every client, so that nothing waits for one.
- No listener: nobody waits for notifications here. No conductor, no telemetry, nothing logged below errors.
- Two processes, for one interpreter lock would leave a core idle.
- Threads and psycopg, not asyncio: its asynchronous datasource asks its system database in a thread at every step, and
  was slower when both were tried.
- Rows are written by the three statements that `pgbench` has too, without an ORM, and an event costs nothing to build.
"""

import threading
import time
from collections.abc import Callable

from dbos import DBOS, DBOSConfig, SQLAlchemyDatasource
from sqlalchemy import text

from tests.bench.six_steps.statements import ACTOR, APPEND, MOVE, OPEN, SECONDS, STEPS, TELL, new_id
from tests.bench.worker import ready, serve

_OPEN, _MOVE, _TELL, _APPEND = map(text, (OPEN, MOVE, TELL, APPEND))


def work(*, url: str, clients: int, events: list[list[str]], name: str) -> dict[str, float]:
    """Take cases through their steps with so many threads; `events` holds what each step tells."""
    config: DBOSConfig = {
        "name": "six-steps",
        "executor_id": name,
        "system_database_url": url,
        "sys_db_pool_size": clients,
        "db_engine_kwargs": {"pool_pre_ping": False},
        "max_executor_threads": clients,
        "use_listen_notify": False,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    source = SQLAlchemyDatasource.create(url, engine_kwargs={"pool_size": clients, "max_overflow": 0})

    @source.transaction(isolation_level="READ COMMITTED")  # type: ignore[untyped-decorator]  # see below
    def step(number: int, case: str) -> None:
        action, before, state = STEPS[number]
        topic, kind, trace, body = events[number]
        session = source.sql_session()
        session.execute(_MOVE if before else _OPEN, {"case": case, "state": state, "before": before})
        session.execute(_TELL, {"case": case, "action": action, "state": state, "actor": ACTOR})
        event = {"event": new_id(), "topic": topic, "key": case, "type": kind, "trace": trace, "body": body.encode()}
        session.execute(_APPEND, event)

    @DBOS.workflow()  # type: ignore[untyped-decorator]  # dbos is not there where types are checked
    def course(case: str) -> None:
        for number in range(len(STEPS)):
            step(number, case)

    DBOS.launch()
    taken = [0] * clients

    def client(number: int, ends_at: float) -> None:
        while time.perf_counter() < ends_at:
            course(str(new_id()))
            taken[number] += len(STEPS)

    _together(client, clients, 1.0)  # connections are made, statements are known
    ready()
    taken[:] = [0] * clients
    own, began = time.process_time(), time.perf_counter()
    _together(client, clients, SECONDS)
    took, own = time.perf_counter() - began, time.process_time() - own
    DBOS.destroy()
    return {"steps/s": sum(taken) / took, "own_us": own / sum(taken) * 1e6}


def _together(client: Callable[[int, float], None], clients: int, seconds: float) -> None:
    ends_at = time.perf_counter() + seconds
    threads = [threading.Thread(target=client, args=(number, ends_at)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    serve(work)
