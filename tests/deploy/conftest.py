"""A system in which an application was paid, and what no service may do to its tables."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from deploy.local import Local
from libs.common.db import connect
from services.intake.api.examples import FILING
from tests.collector import Collector
from tests.conftest import System, start_system
from tests.steps import (
    confirm,
    departments_answer,
    desks_of,
    eventually,
    give_quota,
    item_of,
    officers_of,
    order_of,
    propose,
    send_to_bank,
    take_to_bank_and_back,
    treasurer_of,
)

COUNTY = "410522"


@contextmanager
def folder_of_our_own() -> Iterator[Path]:
    """Outside pytest's own folders: another run of pytest changes their rights under a cluster that starts."""
    with tempfile.TemporaryDirectory(prefix="huanquan-test-") as folder:
        yield Path(folder)


@contextmanager
def running(home: Path, **variables: str) -> Iterator[System]:
    with mock.patch.dict(os.environ, variables):
        system = start_system(home, "--no-sample")
    try:
        yield system
    finally:
        system.process.send_signal(signal.SIGINT)
        assert system.process.wait(30) == 0


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="session")
def paid(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[tuple[System, str]]:
    """A system of its own, which sends its spans to the collector, and an application that was paid in it."""
    with running(tmp_path_factory.mktemp("paid") / "home", HUANQUAN_TRACES_URL=collector.url) as system:
        yield system, asyncio.run(_pay(system))


async def _pay(system: System) -> str:
    async with desks_of(system) as at:
        receipt = await at.desk("portal").post("/intake/v1/applications", FILING, key="cli")
        application = str(receipt["id"])
        await departments_answer(at, application)
        one, other = officers_of(at, COUNTY)
        for code, verdict in (("talent_certification", "certify"), ("living_allowance", "approve")):
            item = await item_of(at, application, code)
            await propose(one, item, verdict)
            await confirm(other, item)
        await order_of(at, application, "unfunded")
        treasurer = treasurer_of(at, COUNTY)
        await give_quota(treasurer, COUNTY, "living_allowance", fen=1_000_000)
        batch = await send_to_bank(treasurer, COUNTY, await order_of(at, application, "due"))
        await take_to_bank_and_back(treasurer, batch)
        supervisor = at.desk("supervisor")
        await eventually(
            lambda: supervisor.get(f"/intake/v1/applications/{application}"),
            lambda view: [payment["state"] for payment in view["payments"]] == ["settled"],
        )
        await eventually(
            lambda: supervisor.pages("/audit/v1/trail", key=application),
            lambda steps: any(step["type"] == "PayoutSettled" for step in steps),
        )
    return application


async def as_superuser(system: System, service: str, name: str, change: str) -> str:
    """Do to a table what no service may; gives what names the record."""
    local = Local(system.home)
    local.postgres.start()
    connection = await connect(local.postgres.url(service))
    try:
        named = str(await connection.fetchval(name))
        await connection.execute("SET session_replication_role = replica")  # not even triggers
        await connection.execute(change)
        return named
    finally:
        await connection.close()
