"""A system in which an application was paid, and what no service may do to its tables."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from random import Random
from unittest import mock

import pytest

from deploy.local import Local
from deploy.sample.client import Platform
from deploy.sample.identities import make_resident_number
from deploy.sample.people import make_employers
from libs.common.db import connect
from libs.common.identity import Sex
from services.intake.api.examples import FILING
from tests.collector import Collector
from tests.conftest import System, start_system
from tests.steps import (
    act,
    confirm,
    contest,
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
        await _keep_directory(at)
        await _refuse_after_objection(at)
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


async def _refuse_after_objection(at: Platform) -> None:
    """Another certification is published, objected to, sent back and refused."""
    number = make_resident_number(Random("published"), COUNTY, date(1988, 5, 1), Sex.FEMALE)
    person = {"name": "赵示例", "documents": [{"type": "resident_identity_card", "number": number}]}
    items = [{"code": "talent_certification", "category": "master"}]
    changed = {"beneficiary": person, "items": items, "external_refs": [], "payee_account": None}
    filing = {name: value for name, value in (FILING | changed).items() if value is not None}
    receipt = await at.desk("portal").post("/intake/v1/applications", filing, key="published")
    application = str(receipt["id"])
    await departments_answer(at, application)
    one, other = officers_of(at, COUNTY)
    item = await item_of(at, application, "talent_certification")
    objection = await contest(one, other, item)
    found = {"upheld": True, "finding": "经核查，学历与申报材料不一致"}
    await other.post(f"/workflow/v1/objections/{objection['id']}:conclude", found, key="finding")
    await act(other, item, "reject", {"reason": "异议成立"})
    await act(one, item, "propose", {"verdict": "refuse", "reason": "公示期间异议成立"}, key="refuse")
    await confirm(other, item)
    await eventually(
        lambda: at.desk("supervisor").get(f"/intake/v1/applications/{application}"),
        lambda view: view["state"] == "refused",
    )


async def _keep_directory(at: Platform) -> None:
    """An employer is entered in the leading-enterprise directory and struck from it later."""
    path = "/intake/v1/directories/leading_enterprise"
    [employer, *_] = make_employers(Random("listed"), [(COUNTY, "内黄")])
    keeper = at.desk("talent_office", org_unit="410500/talent_office")
    line = {"credit_code": employer.credit_code, "name": employer.name}
    entered = {"document": "安人才办〔2026〕5 号", "from": "2026-03-01", "employers": [line]}
    await keeper.post(f"{path}:enter", entered, key="entered")
    line = {"credit_code": employer.credit_code}
    struck = {"document": "安人才办〔2026〕9 号", "from": "2026-09-01", "employers": [line]}
    await keeper.post(f"{path}:strike", struck, key="struck")
    await eventually(
        lambda: at.desk("supervisor").pages("/audit/v1/trail", key=employer.credit_code),
        lambda steps: [step["type"] for step in steps] == ["EmployerListed", "EmployerStruck"],
    )


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
