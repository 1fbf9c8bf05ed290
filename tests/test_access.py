"""Who may see and do what: every operation of every service, for every role and org unit, on records that exist."""

import asyncio
import base64
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from deploy.engine import SERVICES
from deploy.sample.portal import FILE
from libs.common.auth import ORG_UNIT_ROLES, ROLES, TokenIssuer
from libs.common.settings import Settings
from tests.conftest import System
from tests.records import HOME, TERM, make_records
from tests.steps import Json

ELSEWHERE, CITY = "410522", "410500"
OFFICES = {
    "department": "human_resources",
    "specialist": "human_resources",
    "window_clerk": "government_services",
    "talent_office": "talent_office",
    "treasury": "finance",
    "housing": "housing",
}
ACCOUNT = {"holder": "王小明", "bank": "示例银行", "branch_no": "104496000017", "number": "0017000010001234"}
ENTERED = {
    "document": "安人才办〔2026〕6 号",
    "from": TERM["from_day"],
    "employers": [{"credit_code": "91410522MA0000001E", "name": "安阳示例制造有限公司"}],
}
STRUCK = {**ENTERED, "employers": [{"credit_code": "91410522MA0000001E"}]}
READ = {"headers": {"if-match": '"1"'}}
BODIES: Mapping[str, Json] = {
    "/intake/v1/applications/{application}:correct": {"json": {"payee_account": ACCOUNT}},
    "/intake/v1/applications/{application}:withdraw": {},
    "/intake/v1/applications/{application}/materials": {
        "data": {"code": "degree_certificate"},
        "files": {"file": ("degree.pdf", FILE, "application/pdf")},
    },
    "/intake/v1/people/{ref}/payee-accounts": {"json": ACCOUNT},
    "/intake/v1/people/{ref}/payee-accounts:manage": {"json": ACCOUNT},
    "/intake/v1/directories/{directory}:enter": {"json": ENTERED},
    "/intake/v1/directories/{directory}:strike": {"json": STRUCK},
    "/workflow/v1/tasks/{task}:complete": {"json": {"result": "passed"}},
    "/workflow/v1/tasks/{task}:suspend": {"json": {"reason": "appraisal", "from_day": TERM["from_day"]}},
    "/workflow/v1/tasks/{task}:resume": {"json": {"to_day": TERM["from_day"]}},
    "/workflow/v1/items/{item}:propose": {"json": {"verdict": "certify"}, **READ},
    "/workflow/v1/items/{item}:confirm": READ,
    "/workflow/v1/items/{item}:reject": {"json": {"reason": "依据不足"}, **READ},
    "/workflow/v1/items/{item}:publish": READ,
    "/workflow/v1/items/{item}/objections": {"json": {"received_on": TERM["from_day"], "matter": "反映学历不实"}},
    "/workflow/v1/objections/{objection}:conclude": {"json": {"upheld": False, "finding": "经核实属实"}},
    "/finance/v1/entitlements/{entitlement_id}/instalments/{instalment}:review": {"json": {"facts": {}}},
    "/finance/v1/orders/{order_id}:reissue": {"json": {"payee_account": str(uuid.uuid4())}},
    "/finance/v1/orders/{order_id}:cancel": {"json": {"reason": "重复"}},
    "/finance/v1/bank-exceptions/{exception_id}:resolve": {"json": {"resolution": "已核实"}},
    "/finance/v1/quotas/{quota_id}:increase": {"json": {"fen": 1, "reason": "追加"}},
    "/housing/v1/flats/{flat}:withdraw": {},
    "/housing/v1/flats/{flat}:offer": {},
    "/housing/v1/flats/{flat}:hold": {"json": {"eligibility": str(uuid.uuid4())}},
    "/housing/v1/holds/{hold}:release": {},
    "/housing/v1/holds/{hold}:lease": {"json": TERM},
    "/housing/v1/leases/{lease}:end": {},
}
"""What is well formed for each operation that changes a record."""

CALLERS = sorted(set(ROLES) - {"service"})
"""The roles that people and systems outside have; `service` is our own."""


@dataclass(frozen=True)
class Operation:
    """One documented operation. `path` holds its parameters in braces."""

    service: str
    method: str
    path: str
    scope: str | None

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"\{(\w+)\}", self.path)


@pytest.fixture(scope="module")
def operations(system: System) -> list[Operation]:
    found = []
    for service in SERVICES:
        document = httpx.get(f"{system.addresses.of(service)}/{service}/openapi.json").json()
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                scopes = [scope for need in operation.get("security", []) for scope in next(iter(need.values()))]
                found.append(Operation(service, method, path, next(iter(scopes), None)))
    return found


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=40) as opened:
        yield opened


@pytest.fixture(scope="module")
def tokens(system: System) -> Mapping[str, str]:
    """Somebody of each role, of a unit elsewhere, who is nobody's talent or handler."""
    unit = {"org_unit": f"{ELSEWHERE}/human_resources"}
    return {role: system.token(role, **(unit if role in ORG_UNIT_ROLES else {})) for role in CALLERS}


class At:
    """Calls operations of a system."""

    def __init__(self, system: System, client: httpx.Client) -> None:
        self._system = system
        self._client = client

    def call(
        self, operation: Operation, bearer: str | None, values: Mapping[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """An answer; parameters that have no value are ids of nothing."""
        path = re.sub(r"\{(\w+)\}", lambda found: (values or {}).get(found[1], _nothing(found[1])), operation.path)
        headers = {"idempotency-key": str(uuid.uuid4()), **body.pop("headers", {})}
        if bearer is not None:
            headers["authorization"] = f"Bearer {bearer}"
        address = self._system.addresses.of(operation.service) + path
        return self._client.request(operation.method, address, headers=headers, **body)


@pytest.fixture
def at(system: System, client: httpx.Client) -> At:
    return At(system, client)


def _nothing(parameter: str) -> str:
    return {"month": "2020-01", "treasury": "999999", "instalment": "2"}.get(parameter, str(uuid.uuid4()))


BROKEN: Json = {"content": b"{broken", "headers": {"content-type": "application/json"}}


def bodies(operation: Operation) -> Json:
    return {} if operation.method == "get" else BROKEN


# -- 401


def test_without_a_token_every_operation_but_the_public_ones_answers_401_and_reads_no_body(
    operations: list[Operation], at: At
) -> None:
    public = [str(operation) for operation in operations if operation.scope is None]
    assert public == [
        "GET /intake/v1/policy",
        "POST /intake/v1/eligibility",
        "GET /intake/v1/policy/{sha256}",
        "GET /intake/v1/public-notices",
        "GET /intake/v1/public-notices/page",
    ]
    for operation in operations:
        if operation.scope:
            refused = at.call(operation, None, **bodies(operation))
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated"), operation
            assert refused.headers["www-authenticate"] == "Bearer", operation


def forged(system: System) -> dict[str, str]:
    """Tokens of a supervisor that must not be believed."""
    settings = Settings(home=system.home)
    good = system.token("supervisor")
    claims = json.loads(unpadded(good.split(".")[1]))
    issuer = TokenIssuer(settings)
    elsewhere = settings.model_copy(update={"issuer": "https://elsewhere.example"})
    for_others = settings.model_copy(update={"audience": "another-system"})
    jwks = (system.home / "issuer" / "jwks.json").read_bytes()
    return {
        "expired": issuer.token("supervisor", hours=-1),
        "of another issuer": TokenIssuer(elsewhere).token("supervisor"),
        "for another audience": TokenIssuer(for_others).token("supervisor"),
        "without a signature": _encoded({"alg": "none", "typ": "JWT"}, claims),
        "with a kid and no signature": _encoded({"alg": "none", "kid": _kid(good)}, claims),
        "signed with the public key": jwt.encode(
            {"alg": "HS256", "kid": _kid(good)}, claims, OctKey.import_key(jwks), algorithms=["HS256"]
        ),
        "of other claims": ".".join([good.split(".")[0], packed({**claims, "role": "ops"}), good.split(".")[2]]),
        "without a role": _signed(system, {key: value for key, value in claims.items() if key != "role"}),
        "of an unknown role": _signed(system, {**claims, "role": "emperor"}),
        "of a treasury without a unit": _signed(system, {**claims, "role": "treasury"}),
        "not yet valid": _signed(system, {**claims, "nbf": int(time.time()) + 3600}),
        "no token at all": "Bearer",
    }


def _signed(system: System, claims: Json) -> str:
    issuer = TokenIssuer(Settings(home=system.home))
    return jwt.encode({"alg": "ES256", "kid": issuer._key.kid}, claims, issuer._key, algorithms=["ES256"])


def _encoded(header: Json, claims: Json) -> str:
    return f"{packed(header)}.{packed(claims)}."


def packed(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def unpadded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _kid(token: str) -> str:
    return str(json.loads(unpadded(token.split(".", maxsplit=1)[0]))["kid"])


def test_a_token_that_is_expired_forged_or_of_others_is_no_token(
    system: System, operations: list[Operation], at: At
) -> None:
    readable = [operation for operation in operations if operation.scope in ROLES["supervisor"]]
    of_each_service = {operation.service: operation for operation in readable if not operation.parameters}
    assert set(of_each_service) == set(SERVICES)
    for operation in of_each_service.values():
        assert at.call(operation, system.token("supervisor"), json={}).status_code == 200, operation
        for kind, token in forged(system).items():
            refused = at.call(operation, token, **bodies(operation))
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated"), f"{operation}: {kind}"


# -- 403


def test_a_role_without_the_scope_gets_403_before_any_look_up(
    operations: list[Operation], tokens: Mapping[str, str], at: At, records: Mapping[str, str]
) -> None:
    for operation in operations:
        for role, bearer in tokens.items():
            if operation.scope and operation.scope not in ROLES[role]:
                unknown = at.call(operation, bearer, **bodies(operation))
                assert (unknown.status_code, unknown.json()["code"]) == (403, "forbidden"), f"{role}: {operation}"
                assert operation.scope in unknown.json()["detail"]
                assert the_same_but_the_instance(
                    at.call(operation, bearer, records, **bodies(operation))
                ) == the_same_but_the_instance(unknown)


def test_no_role_audits_what_it_runs_or_pays() -> None:
    paying = ("finance:pay", "finance:settle", "finance:review")
    changing = ("ops:", *paying, "workflow:work", "workflow:decide", "housing:manage")
    for role in ("auditor", "supervisor"):
        assert not any(scope.startswith(changing) for scope in ROLES[role])


# -- 404: what is not yours looks like what is not there


@pytest.fixture(scope="module")
def records(system: System) -> Mapping[str, str]:
    """One record of each kind of one treasury, by the name of the parameter that it stands for."""
    return asyncio.run(make_records(system))


def strangers(system: System) -> dict[str, tuple[str, str]]:
    """Callers of every role to whom the records are not theirs, as (role, token)."""
    made = {
        "another portal": ("portal", system.token("portal", subject="another-portal")),
        "another talent": ("talent", system.token("talent", person=str(uuid.uuid4()))),
        "a talent without a reference": ("talent", system.token("talent")),
        "another handler": ("handler", system.token("handler", person=str(uuid.uuid4()))),
    }
    for role in ORG_UNIT_ROLES:
        units = [f"{treasury}/{OFFICES[role]}" for treasury in (ELSEWHERE, CITY)]
        if role in {"department", "specialist"}:
            units.append(f"{HOME}/health")  # which has no task of these applications
        for unit in units:
            made[f"{role} {unit}"] = (role, system.token(role, org_unit=unit))
    return made


def the_same_but_the_instance(answer: httpx.Response) -> tuple[int, Json]:
    return answer.status_code, {key: value for key, value in answer.json().items() if key != "instance"}


OF_THE_CITY = ("/finance/v1/periods/", "/intake/v1/directories/")


def of_a_record(operations: list[Operation]) -> list[Operation]:
    """The operations on one record. Audit has no org units; a period is the city's to close, and a directory one
    department's of the city to keep and everybody's to read (see below)."""
    return [
        each
        for each in operations
        if each.parameters and each.service != "audit" and not each.path.startswith(OF_THE_CITY)
    ]


def test_every_record_is_there_for_whom_it_concerns(
    system: System, operations: list[Operation], at: At, records: Mapping[str, str]
) -> None:
    supervisor, treasurer = system.token("supervisor"), system.token("treasury", org_unit=f"{HOME}/finance")
    for operation in operations:
        if operation.parameters and operation.method == "get":
            bearer = supervisor if operation.scope in ROLES["supervisor"] else treasurer
            assert at.call(operation, bearer, records).status_code == 200, operation


def test_what_is_not_yours_looks_in_every_operation_like_what_is_not_there(
    system: System, operations: list[Operation], at: At, records: Mapping[str, str]
) -> None:
    supervisor = system.token("supervisor")
    readable = [each for each in of_a_record(operations) if each.method == "get" and each.scope in ROLES["supervisor"]]
    before = [at.call(each, supervisor, records).content for each in readable]
    for who, (role, bearer) in strangers(system).items():
        for operation in of_a_record(operations):
            if operation.scope in ROLES[role]:
                body = BODIES[operation.path] if operation.method != "get" else {}
                unknown = the_same_but_the_instance(at.call(operation, bearer, **body))
                theirs = the_same_but_the_instance(at.call(operation, bearer, records, **body))
                assert unknown[0] == 404, f"{who}: {operation}: {unknown}"
                assert theirs == unknown, f"{who}: {operation}"
    assert [at.call(each, supervisor, records).content for each in readable] == before


def test_no_list_shows_what_is_not_yours(
    system: System, operations: list[Operation], at: At, records: Mapping[str, str]
) -> None:
    lists = [each for each in operations if each.method == "get" and not each.parameters and each.service != "audit"]
    # The policy is everybody's: an application of the stranger's own unit, which another test filed, names it too.
    ids = set(records.values()) - {records["seq"], records["instalment"], records["sha256"]}
    for who, (role, bearer) in strangers(system).items():
        for operation in lists:
            if operation.scope in ROLES[role]:
                answer = at.call(operation, bearer, params={"wait": 0} if operation.path.endswith("poll") else {})
                assert answer.status_code in {200, 404}, f"{who}: {operation}: {answer.text}"
                assert [each for each in ids if each in answer.text] == [], f"{who}: {operation}"


def test_records_of_others_named_in_a_body_look_like_unknown_ones(
    system: System, operations: list[Operation], at: At, records: Mapping[str, str]
) -> None:
    etag = '"1"'
    in_bodies: Mapping[tuple[str, str], Callable[[str], Json]] = {
        ("department", "/workflow/v1/tasks:complete"): lambda _: {
            "tasks": [{"task": records["task"], "result": "passed"}]
        },
        ("talent_office", "/workflow/v1/items:propose"): lambda _: {
            "items": [{"item": records["item"], "etag": etag, "verdict": "certify"}]
        },
        ("talent_office", "/workflow/v1/items:confirm"): lambda _: {"items": [{"item": records["item"], "etag": etag}]},
        ("treasury", "/finance/v1/batches"): lambda treasury: {"treasury": treasury, "orders": [records["order_id"]]},
    }
    by_path = {operation.path: operation for operation in operations if operation.method == "post"}
    for (role, path), body in in_bodies.items():
        bearer = system.token(role, org_unit=f"{ELSEWHERE}/{OFFICES[role]}")
        theirs = at.call(by_path[path], bearer, json=body(ELSEWHERE)).text
        nobodys = str(uuid.uuid4())
        of_nobody = json.loads(_with(records, json.dumps(body(ELSEWHERE)), nobodys))
        unknown = at.call(by_path[path], bearer, json=of_nobody).text
        assert _without_traces(_with(records, theirs, nobodys)) == _without_traces(unknown), path
    refused = at.call(by_path["/finance/v1/batches"], bearer, json={"treasury": HOME})
    assert (refused.status_code, refused.json()["code"]) == (404, "not-found")


def _with(records: Mapping[str, str], text: str, other: str) -> str:
    for each in (records["task"], records["item"], records["order_id"]):
        text = text.replace(each, other)
    return text


def _without_traces(text: str) -> str:
    return re.sub(r"urn:huanquan:trace:[0-9a-f]{32}", "", text)


def test_a_directory_is_its_keepers_to_change_and_everybodys_to_read(
    system: System, operations: list[Operation], at: At, records: Mapping[str, str]
) -> None:
    of_directories = [each for each in operations if each.path.startswith("/intake/v1/directories/")]
    reading = [each for each in of_directories if each.method == "get"]
    changing = [each for each in of_directories if each.method == "post"]
    assert (len(reading), len(changing)) == (2, 2)
    for who, (role, bearer) in strangers(system).items():
        for operation in reading:
            if operation.scope in ROLES[role]:
                assert at.call(operation, bearer, records).status_code == 200, f"{who}: {operation}"
        for operation in changing:
            if operation.scope in ROLES[role]:
                unknown = the_same_but_the_instance(
                    at.call(operation, bearer, {"directory": "another"}, **BODIES[operation.path])
                )
                theirs = the_same_but_the_instance(at.call(operation, bearer, records, **BODIES[operation.path]))
                assert unknown[0] == 404, f"{who}: {operation}"
                keeper = who == f"talent_office {CITY}/talent_office"
                assert theirs[0] == 200 if keeper else theirs == unknown, f"{who}: {operation}"


def test_a_month_is_the_citys_to_close(system: System, operations: list[Operation], at: At) -> None:
    closing = [each for each in operations if each.path.startswith("/finance/v1/periods/")]
    assert len(closing) == 2
    for operation in closing:
        for treasury in (HOME, ELSEWHERE, "999999"):
            values = {"treasury": treasury, "month": "2026-01"}
            county = at.call(operation, system.token("treasury", org_unit=f"{HOME}/finance"), values, json={})
            assert (county.status_code, county.json()["code"]) == (403, "not-the-city-treasury"), operation
    city = system.token("treasury", org_unit=f"{CITY}/finance")
    [of_one] = [each for each in closing if "treasury" in each.parameters]
    assert at.call(of_one, city, {"treasury": "999999", "month": "2026-01"}, json={}).status_code == 404
