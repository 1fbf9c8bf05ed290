"""Alerts and their document: each alert fires for what it is for, says what to do, and looks at what is really told."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.engine import SERVICES
from tests.conftest import ROOT, System
from tests.deploy.test_cli import huanquan

RULES = ROOT / "deploy" / "prometheus" / "huanquan.rules.yml"
DOCUMENT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
OF_PROMETHEUS = {"up"}
PARTS = re.compile(r"_(bucket|sum|count|created)$")
PROMTOOL = shutil.which("promtool")


def slow(route: str) -> dict[str, str]:
    """Answers of a route that take between 2.5 and 5 seconds."""
    return {
        f'http_request_seconds_bucket{{service="{route.split("/")[1]}", route="{route}", le="{le}"}}': f"0+{n}x60"
        for le, n in (("2.5", 0), ("5.0", 60), ("+Inf", 60))
    }


FIRES = {  # what makes each alert fire: series with their values, one a minute, and when it is looked at
    "ServiceDown": ({'up{job="huanquan", service="intake"}': "0+0x5"}, "3m"),
    "NoLeader": ({'huanquan_leader{service="intake", instance="a"}': "0+0x5"}, "3m"),
    "TwoLeaders": ({f'huanquan_leader{{service="intake", instance="{i}"}}': "1+0x5" for i in "ab"}, "3m"),
    "JobStandsStill": ({'huanquan_job_silent_seconds{service="intake", instance="a", job="relay"}': "61+60x5"}, "3m"),
    "EngineAway": ({'huanquan_look_failed{service="intake", gauge="parked_keys"}': "1+0x5"}, "4m"),
    "PoolExhausted": (
        {'huanquan_pool_in_use{service="intake"}': "5+0x10", 'huanquan_pool_size{service="intake"}': "5+0x10"},
        "8m",
    ),
    "RequestsFail": (
        {'http_requests_total{service="intake", route="/intake/v1/x", status="500"}': "0+60x20"},
        "15m",
    ),
    "RequestsSlow": (slow("/intake/v1/x"), "20m"),
    "DiskAlmostFull": ({'huanquan_home_free_bytes{service="intake"}': "1000+0x10"}, "8m"),
    "OutboxOld": ({'huanquan_outbox_oldest_seconds{service="intake", topic="t"}': "61+60x5"}, "3m"),
    "Backlog": ({'huanquan_topic_unread{service="intake", topic="t"}': "5+0x40"}, "30m"),
    "EventsParked": ({'huanquan_parked_keys{service="intake", topic="t", waiting="no"}': "1+0x2"}, "1m"),
    "EventsWait": ({'huanquan_parked_oldest_seconds{service="intake", topic="t", waiting="yes"}': "601+0x2"}, "1m"),
    "DueWorkOverdue": ({'huanquan_due_overdue_seconds{service="intake", kind="k"}': "61+60x5"}, "3m"),
    "TasksOverdue": (
        {'huanquan_clocks{kind="task", light="red", treasury="t", department="d"}': "1+0x2"},
        "1m",
    ),
    "PayoutsLate": ({'huanquan_payouts_late{treasury="t", state="due"}': "1+0x2"}, "1m"),
    "PayoutsUnknown": ({'huanquan_payouts{treasury="t", state="unknown"}': "1+0x300"}, "5h"),
    "PayoutsBounced": ({'huanquan_payouts{treasury="t", state="bounced"}': "1+0x300"}, "5h"),
    "PayoutsUnfunded": ({'huanquan_payouts{treasury="t", state="unfunded"}': "1+0x300"}, "5h"),
    "ReviewsMissing": ({'huanquan_pending_reviews_withheld{treasury="t", last="none"}': "1+0x300"}, "5h"),
    "BankExceptions": ({'huanquan_bank_exceptions{treasury="t", kind="k"}': "1+0x90"}, "80m"),
    "TrailUnanchored": ({'huanquan_trail_unanchored{service="audit"}': "2001+0x10"}, "8m"),
    "TrailBroken": (
        {'huanquan_verify_violations{invariant="the trail is whole and meets its anchors"}': "1+0x2"},
        "1m",
    ),
    "InvariantViolated": ({'huanquan_verify_violations{invariant="x"}': "1+0x2"}, "1m"),
    "VerifyStale": ({"huanquan_verify_finished_seconds": "0+0x1800"}, "29h"),
}
WELL = (  # what a deployment at rest tells: nothing fires
    'up{job="huanquan", service="intake"}',
    'huanquan_leader{service="intake", instance="a"}',
    'huanquan_pool_size{service="intake"}',
)


def alerts() -> list[dict[str, Any]]:
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in rules["groups"] for rule in group["rules"]]


def named_in(text: str) -> set[str]:
    """The names of metrics in an expression or a document, without the parts of a histogram."""
    return {PARTS.sub("", name) for name in re.findall(r"\b(?:huanquan|http_request)s?_\w+", text)}


def test_every_alert_has_a_section_that_says_what_to_do_and_no_section_is_left_over() -> None:
    told = re.findall(r"^### (\w+)\n(.+)", DOCUMENT, re.MULTILINE)
    assert [name for name, words in told if words.strip()] == [alert["alert"] for alert in alerts()]


@pytest.fixture(scope="module")
def told(paid: tuple[System, str], tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Every metric that a running system and `huanquan verify --metrics` tell of."""
    system, _ = paid
    file = tmp_path_factory.mktemp("verify") / "huanquan.prom"
    assert huanquan(system, "verify", "--metrics", str(file)).exit_code == 0
    pages = [httpx.get(f"{system.addresses.of(s)}/{s}/metrics", timeout=30).text for s in SERVICES]
    types = re.findall(r"^# TYPE (\w+) (\w+)$", "\n".join([*pages, file.read_text()]), re.MULTILINE)
    return {name for name, _ in types if not name.endswith("_created")}


def test_every_metric_that_an_alert_looks_at_is_told(told: set[str]) -> None:
    looked_at = set().union(*(named_in(alert["expr"]) for alert in alerts()))
    assert looked_at - told - OF_PROMETHEUS == set()


def test_the_document_names_every_metric_of_ours_and_no_other(told: set[str]) -> None:
    rows = [line.split("|")[1] for line in DOCUMENT.splitlines() if re.match(r"\| `(huanquan|http_request)", line)]
    in_table = set().union(*(named_in(row) for row in rows))
    assert in_table == {name for name in told if name.startswith(("huanquan_", "http_request"))}
    assert named_in(DOCUMENT) - told == set()


def test_what_makes_each_alert_fire_is_known() -> None:
    assert list(FIRES) == [alert["alert"] for alert in alerts()]


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool (Debian's prometheus package)")
def test_each_alert_fires_for_what_it_is_for_and_none_where_all_is_well(tmp_path: Path) -> None:
    tests = [_firing(series, at, f'alertname="{name}", ', 1) for name, (series, at) in FIRES.items()]
    well = dict.fromkeys(WELL, "1+0x60") | {"huanquan_verify_finished_seconds": "0+60x60"}
    waits = slow("/workflow/v1/tasks:poll") | slow("/intake/v1/changes")
    tests.append(_firing(well | waits, "1h", "", 0))
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool (Debian's prometheus package)")
def test_prometheus_takes_the_shipped_configuration() -> None:
    line = [str(PROMTOOL), "check", "config", str(RULES.with_name("prometheus.yml"))]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _firing(series: dict[str, str], at: str, which: str, n: int) -> dict[str, Any]:
    """A test for promtool: with these series, so many of these alerts fire at that time."""
    expected = [{"labels": "{}", "value": n}] if n else []
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(count by (alertname) (ALERTS{{{which}alertstate="firing"}}))',
                "eval_time": at,
                "exp_samples": expected,
            }
        ],
    }
