"""One application followed through all five services, by the spans that they send and by what their databases know."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from services.intake.api.examples import FILING
from tests.collector import Collector, Told
from tests.conftest import System
from tests.deploy.conftest import as_superuser
from tests.deploy.test_cli import huanquan
from tests.steps import desks_of, named_in

ALL = {f"huanquan-{service}" for service in ("intake", "workflow", "finance", "housing", "audit")}


def awaited(collector: Collector, wished: Callable[[list[Told]], bool]) -> list[Told]:
    """The spans, once those wished for have come: they are sent a second later, beside the work."""
    until = time.monotonic() + 20
    while not wished(collector.spans) and time.monotonic() < until:
        time.sleep(0.1)
    return list(collector.spans)


def one(spans: list[Told], service: str, name: str, **more: str) -> Told:
    found = [
        span
        for span in spans
        if (span.service, span.name) == (f"huanquan-{service}", name)
        and all(getattr(span, field) == value for field, value in more.items())
    ]
    assert len(found) == 1, found
    return found[0]


def handling(spans: list[Told], type_: str) -> set[str]:
    """The services that have handled an event of this type."""
    return {span.service for span in spans if span.name == f"handle {type_}"}


def of_the_filing(spans: list[Told], application: str) -> list[Told]:
    """The spans of the trace in which an application was filed."""
    opened = {
        span.trace
        for span in spans
        if span.name == "handle ApplicationAccepted" and span.attributes["huanquan.key"] == application
    }
    return [span for span in spans if span.trace in opened]


def test_a_filing_is_one_trace_from_the_request_to_its_tasks(collector: Collector, paid: tuple[System, str]) -> None:
    both = {"huanquan-intake", "huanquan-audit"}
    spans = awaited(collector, lambda spans: both <= handling(of_the_filing(spans, paid[1]), "DeptAssigned"))
    trace = of_the_filing(spans, paid[1])
    filed = one(trace, "intake", "POST /intake/v1/applications")
    published = one(trace, "intake", "publish ApplicationAccepted")
    opened = one(trace, "workflow", "handle ApplicationAccepted")
    assert (published.parent, opened.parent) == (filed.id, filed.id)
    told = [span for span in trace if span.name == "publish DeptAssigned"]
    assert {(span.service, span.parent) for span in told} == {("huanquan-workflow", opened.id)}
    heard = [span for span in trace if span.name == "handle DeptAssigned"]
    assert {(span.service, span.parent) for span in heard} == {
        ("huanquan-intake", opened.id),
        ("huanquan-audit", opened.id),
    }
    assert filed.begins <= published.begins <= opened.begins <= min(span.begins for span in heard)
    assert all(span.seconds > 0 for span in (filed, opened, *heard))


def test_an_approval_is_one_trace_through_all_five_services(collector: Collector, paid: tuple[System, str]) -> None:
    spans = awaited(
        collector,
        lambda spans: (
            {"huanquan-finance", "huanquan-housing"} <= handling(spans, "BenefitApproved")
            and {"huanquan-intake", "huanquan-audit"} <= handling(spans, "PayoutOrdered")
        ),
    )
    approved = one(spans, "workflow", "publish BenefitApproved")
    trace = [span for span in spans if span.trace == approved.trace]
    assert {span.service for span in trace} == ALL
    granted = one(trace, "finance", "handle BenefitApproved")
    ordered = one(trace, "finance", "publish PayoutOrdered")
    assert (granted.parent, ordered.parent) == (approved.parent, granted.id)
    assert one(trace, "intake", "handle PayoutOrdered").parent == granted.id
    one(trace, "housing", "handle BenefitApproved")


def test_finance_asks_intake_of_an_account_in_the_trace_of_its_officer(
    collector: Collector, paid: tuple[System, str]
) -> None:
    spans = awaited(collector, lambda spans: any(span.name == "publish PeopleResolved" for span in spans))
    sent = one(spans, "finance", "POST /finance/v1/batches")
    asked = one(spans, "intake", "POST /intake/v1/people:resolve", trace=sent.trace)
    assert asked.parent == sent.id


def test_no_span_names_anybody(collector: Collector, paid: tuple[System, str]) -> None:
    spans = awaited(collector, lambda spans: any(span.name == "handle PayoutSettled" for span in spans))
    told = [({"name": span.name}, json.dumps(span.attributes, ensure_ascii=False)) for span in spans]
    assert named_in(told, FILING) == []


# -- without a collector


@pytest.mark.parametrize("known_by", ["id", "case_no"])
def test_the_command_follows_an_application_from_the_databases_alone(paid: tuple[System, str], known_by: str) -> None:
    system, application = paid
    name = {"id": application, "case_no": asyncio.run(case_no_of(system, application))}[known_by]
    told = huanquan(system, "trace", name)
    assert told.exit_code == 0
    *lines, total = told.stdout.splitlines()
    assert re.fullmatch(r"21 events in \d+ traces through 5 services", total), total
    first = next(line for line in lines if "ApplicationAccepted" in line)
    assert re.search(r"\+\d ms +intake +ApplicationAccepted +.*workflow \d+ ms", first), first
    settled = next(line for line in lines if "PayoutSettled" in line)
    assert re.search(r"finance .* intake \d+ ms", settled), settled


def test_the_command_says_who_has_parked_an_event(paid: tuple[System, str]) -> None:
    system, application = paid
    accepted = f"SELECT event_id FROM outbox WHERE key = '{application}' AND type = 'ApplicationAccepted'"  # noqa: S608 - ours
    event = asyncio.run(as_superuser(system, "intake", accepted, "SELECT 1"))
    park = f"""INSERT INTO parked (topic, partition, "offset", key, record_key, headers, value, reason)
               VALUES ('application.received', 0, 999999, 'k', 'k', '{{"ce_id": "{event}"}}', '', 'x')"""  # noqa: S608
    asyncio.run(as_superuser(system, "workflow", "SELECT 1", park))
    try:
        told = huanquan(system, "trace", application).stdout
    finally:
        asyncio.run(as_superuser(system, "workflow", "SELECT 1", "DELETE FROM parked WHERE key = 'k'"))
    [line] = [each for each in told.splitlines() if "ApplicationAccepted" in each]
    assert line.endswith("workflow has parked it")
    assert "workflow " not in line.removesuffix("workflow has parked it")


def test_the_command_draws_what_it_tells(paid: tuple[System, str], tmp_path: Path) -> None:
    system, application = paid
    file = tmp_path / "trace.svg"
    assert huanquan(system, "trace", application, "--svg", str(file)).exit_code == 0
    picture = ET.fromstring(file.read_text())  # noqa: S314 - our own
    words = ["".join(node.itertext()) for node in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert [words.count(f"workflow {type_}") for type_ in ("DeptAssigned", "DeptCompleted", "BenefitApproved")] == [
        6,
        6,
        1,
    ]
    bars = [node for node in picture.iter("{http://www.w3.org/2000/svg}rect") if node.get("opacity")]
    assert len(bars) == 21
    assert huanquan(system, "trace", application, "--svg", "-").stdout.startswith("<svg ")


def test_of_nobodys_application_the_command_says_so(paid: tuple[System, str]) -> None:
    assert huanquan(paid[0], "trace", "AY0").refusal.startswith("nothing was told of 'AY0'")


async def case_no_of(system: System, application: str) -> str:
    async with desks_of(system) as at:
        return str((await at.desk("supervisor").get(f"/intake/v1/applications/{application}"))["case_no"])
