"""Files that come in from others: whatever has happened to them, nothing is lost, nothing is half done, nothing breaks,
and each refusal says where and what to do."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import example, given, seed
from hypothesis import strategies as st

from deploy.sample.bank import answer
from libs.common.calendar import CALENDAR, FIRST, LAST
from libs.common.policy import Pack
from libs.common.policy.errors import PackRefused
from tests.attack.conftest import SEED
from tests.attack.mangling import mangled, tried
from tests.common.packs import anyang_text
from tests.conftest import System
from tests.intake.builders import a_filing
from tests.records import HOME
from tests.steps import CREDITS_STRANGERS_TOO, today

CHINESE = re.compile("[一-鿿]")
Json = dict[str, Any]
Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def ask(attacked: System) -> Iterator[Ask]:
    """Asks as somebody."""
    bearers = {
        "portal": attacked.token("portal"),
        "treasury": attacked.token("treasury", org_unit=f"{HOME}/finance"),
    }
    with httpx.Client(base_url=attacked.addresses.of("intake"), timeout=60) as client:

        def asked(role: str, method: str, path: str, **given: Any) -> httpx.Response:
            headers = {"authorization": f"Bearer {bearers[role]}", "idempotency-key": str(uuid4())}
            return client.request(method, path, **given | {"headers": headers | given.get("headers", {})})

        yield asked


def told_what_to_do(problem: Json) -> None:
    assert problem["status"] < 500, problem
    assert CHINESE.search(problem["title"])
    assert CHINESE.search(problem["detail"])
    assert all(CHINESE.search(error["detail"]) for error in problem["errors"]), problem


# -- the bulk file of filings

BULK = "/intake/v1/applications:batch"
FILING = a_filing()
SOUND_BULK = b"".join(
    json.dumps({"idempotency_key": key, "application": FILING}, ensure_ascii=False).encode() + b"\n"
    for key in ("attack-1", "attack-2", "attack-3")
)


@seed(SEED)
@tried()
@given(raw=mangled(SOUND_BULK) | st.binary(max_size=300))
@example(raw=b"")
@example(raw=b'{"idempotency_key": "attack-4", "application": {"a": 1e999}}')
@example(raw=b'{"idempotency_key": "attack-5", "application": {"\\ud800": "\\u0000"}}')
@example(raw=b'{"idempotency_key": "attack-6", "application": ' + b'{"a": ' * 9000 + b"1" + b"}" * 9001)
@example(raw=b"x" * 300_000 + b"\n" + SOUND_BULK)
def test_each_line_of_a_bulk_file_has_its_answer_and_the_same_one_again(ask: Ask, raw: bytes) -> None:
    sent = {"content": raw, "headers": {"content-type": "application/x-ndjson"}}
    first, again = (ask("portal", "POST", BULK, **sent) for _ in range(2))
    assert first.status_code == 200
    results = [json.loads(line) for line in first.text.split("\n") if line]
    wanted = [number for number, line in enumerate(raw.split(b"\n"), 1) if line.strip()]
    assert [result["line"] for result in results] == wanted
    for result in results:
        if "problem" in result:
            told_what_to_do(result["problem"])
        else:
            receipt = result["application"]
            assert (
                ask("portal", "GET", f"/intake/v1/applications/{receipt['id']}").json()["case_no"] == receipt["case_no"]
            )
    assert _without_traces(first.text) == _without_traces(again.text)


def _without_traces(text: str) -> str:
    return re.sub("urn:huanquan:trace:[0-9a-f]+", "", text)


# -- the bank's result file

RESULTS = "/finance/v1/bank-results"


@pytest.fixture(scope="module")
def sound_result(ask: Ask, records: Mapping[str, str]) -> bytes:
    """What the bank says of a batch: an order credited, and a payment that nobody knows."""
    file = ask("treasury", "GET", f"/finance/v1/batches/{records['batch_id']}/file").content
    return answer(file, CREDITS_STRANGERS_TOO, on=today())


def _books(ask: Ask) -> Json:
    """What an import may change."""
    exceptions = ask("treasury", "GET", "/finance/v1/bank-exceptions?limit=200").json()
    return {
        "exceptions": len(exceptions["items"]) if exceptions["next"] is None else 200,
        "orders": ask("treasury", "GET", "/finance/v1/orders").json()["items"],
        "accounts": ask("treasury", "GET", "/finance/v1/ledger/accounts").json()["items"],
    }


@seed(SEED)
@tried()
@given(data=st.data())
def test_a_result_file_counts_whole_or_not_at_all(ask: Ask, sound_result: bytes, data: st.DataObject) -> None:
    raw = data.draw(mangled(sound_result) | st.binary(max_size=300), label="file")
    before = _books(ask)
    took = ask("treasury", "POST", RESULTS, content=raw, headers={"content-type": "application/octet-stream"})
    after = _books(ask)
    if took.status_code == 200:
        told = took.json()
        assert told["lines"] == sum(told["verdicts"].values())
        # A line settles, bounces, waits, repeats what is known, or stands among the exceptions: none is lost.
        assert told["lines"] >= len(
            [row for row in raw.split(b"\n")[1:-2] if row.strip() and not row.startswith(b"B|")]
        )
        assert after["exceptions"] <= before["exceptions"] + told["exceptions"]
    else:
        assert took.status_code in {409, 413, 422}, took.text
        assert took.json()["code"] in {"result-file-refused", "result-file-number-reused", "too-large"}
        assert "未导入任何内容" in took.json()["detail"] or took.status_code == 413
        told_what_to_do(took.json())
        assert after == before
    settled = Counter(order["state"] for order in after["orders"])
    assert settled == Counter(order["state"] for order in before["orders"]), (
        "the bank has nothing new to say of an order"
    )
    assert after["accounts"] == before["accounts"]


# -- the policy pack


@seed(SEED)
@tried(few=8)
@given(raw=mangled(anyang_text().encode()) | st.binary(max_size=300))
@example(raw=anyang_text().encode("utf-16"))
@example(raw=anyang_text().encode("gb18030"))
@example(raw=anyang_text().replace("\n", "\r\n").encode())
@example(raw=anyang_text().encode() * 2)
@example(raw=b"a: " * 4000)
@example(raw=b"a: &a [*a]")
@example(raw=b"<<: {a: 1}\n")
@example(raw=b"--- {}\n--- {}\n")
@example(raw=b"!!python/object/apply:os.system [id]")
def test_a_policy_pack_is_sound_or_refused_with_its_lines(raw: bytes) -> None:
    try:
        pack = Pack.parse(raw, "pack.yaml")
    except PackRefused as refused:
        last = raw.count(b"\n") + 1
        placed = [0 <= defect.line <= last and bool(defect.reason) for defect in refused.defects]
        assert placed, "no defect is told"
        assert all(placed), str(refused)  # noqa: PT017
    else:
        assert pack.source == raw


# -- the calendar: a notice is data in the program so far; what takes it in holds


_DAYS = st.dates(date(1990, 1, 1), date(2120, 1, 1))


@seed(SEED)
@tried(few=100)
@given(st.frozensets(_DAYS, max_size=5), st.frozensets(_DAYS, max_size=5), _DAYS)
def test_a_notice_is_taken_in_whole_or_refused_with_the_day(
    working: frozenset[date], holidays: frozenset[date], through: date
) -> None:
    try:
        noticed = CALENDAR.with_notice(working=working, holidays=holidays, official_through=through)
    except ValueError as refused:
        assert re.search(r"\d{4}", str(refused))  # noqa: PT017 (either outcome is right)
        return
    for day in working | holidays:
        assert FIRST <= day <= LAST
        assert noticed.is_working_day(day) == (day in working)
    far = date(2004, 1, 1)
    while far in working | holidays:
        far += timedelta(days=1)
    assert noticed.is_working_day(far) == CALENDAR.is_working_day(far)
