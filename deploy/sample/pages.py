"""The foot of the page at `/` in development: a ready token for each role, and a `curl` that works when pasted."""

import json
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from random import Random

from deploy.local import Addresses
from deploy.sample import people
from deploy.sample.filings import Draft, Json, certification, item
from libs.common.auth import TokenIssuer
from libs.common.settings import Settings

COUNTY = "410522"
PEOPLE = "sample-people.json"


@dataclass(frozen=True, slots=True)
class Visitor:
    """A kind of user: the role with its unit, Chinese words for it, and what the `curl` asks."""

    role: str
    title: str
    asks: str
    path: str
    unit: str | None = None
    posts: bool = False


VISITORS = (
    Visitor("portal", "省级门户", "提交一份申请", "/intake/v1/applications", posts=True),
    Visitor("department", "部门系统", "听取任务", "/workflow/v1/tasks:poll?wait=0", f"{COUNTY}/public_security"),
    Visitor("talent", "人才", "查看本人的申请", "/intake/v1/applications"),
    Visitor("handler", "经办人", "查看经办的申请", "/intake/v1/applications"),
    Visitor(
        "window_clerk", "综窗受理人员", "查看本地的申请", "/intake/v1/applications", f"{COUNTY}/government_services"
    ),
    Visitor("specialist", "服务专员", "查看本部门任务", "/workflow/v1/tasks?limit=5", f"{COUNTY}/education"),
    Visitor("talent_office", "人才办", "查看待决定事项", "/workflow/v1/decisions", f"{COUNTY}/talent_office"),
    Visitor("treasury", "财政", "查看支付令", "/finance/v1/orders?limit=5", f"{COUNTY}/finance"),
    Visitor("housing", "住房管理", "查看可选房源", "/housing/v1/flats?status=available", f"{COUNTY}/housing"),
    Visitor("supervisor", "督查", "查看各部门办理情况", "/audit/v1/supervision/summary"),
    Visitor("auditor", "审计", "核验留痕", "/audit/v1/trail:verify", posts=True),
    Visitor("ops", "运行维护", "查看运行指标", "/audit/metrics"),
)


def first_page(addresses: Addresses, settings: Settings) -> str:
    """HTML with a token and a command for each kind of user, made anew at each visit. Raises IssuerRefused in
    production."""  # fmt: skip
    issuer, known = TokenIssuer(settings), _known_people(settings.home)
    rows = "".join(_row(visitor, addresses, issuer, known) for visitor in VISITORS)
    return (
        "<h2>开发令牌</h2><p>仅在开发模式下提供，八小时内有效；每条命令可直接粘贴到终端执行。"
        "其他令牌：<code>huanquan token --role ROLE --org-unit CODE</code></p>" + rows
    )


def remember(home: Path, people_refs: Json) -> None:
    """Keep the person_refs of a talent and a handler of the sample, so that the page can show what they see."""
    (home / PEOPLE).write_text(json.dumps(people_refs))


def _known_people(home: Path) -> Json:
    try:
        found: Json = json.loads((home / PEOPLE).read_text())
    except FileNotFoundError:
        return {}
    return found


def _row(visitor: Visitor, addresses: Addresses, issuer: TokenIssuer, known: Json) -> str:
    person = known.get(visitor.role)
    token = issuer.token(visitor.role, org_unit=visitor.unit, person=person)
    command = shlex.join(_command(visitor, addresses, token))
    unit = f" <code>{escape(visitor.unit)}</code>" if visitor.unit else ""
    alone = "（样本数据运行之后，此处为样本中的一人）" if visitor.role in {"talent", "handler"} and not person else ""
    return (
        f"<details><summary><b>{escape(visitor.title)}</b> <code>{escape(visitor.role)}</code>{unit}："
        f"{escape(visitor.asks)}{alone}</summary><pre>{escape(command)}</pre>"
        f"<p>令牌：<code>{escape(token)}</code></p></details>"
    )


def _command(visitor: Visitor, addresses: Addresses, token: str) -> Iterator[str]:
    service = visitor.path.split("/", 2)[1]
    yield from ("curl", "-sS", "-H", f"Authorization: Bearer {token}")
    if visitor.role == "portal":
        yield from ("-H", f"Idempotency-Key: page-{secrets.token_hex(8)}")
    if visitor.posts:
        body = _filing() if visitor.role == "portal" else {}
        yield from ("-H", "Content-Type: application/json", "-d", json.dumps(body, ensure_ascii=False))
    yield addresses.of(service) + visitor.path


def _filing() -> Json:
    """A filing of somebody new at each visit: the same person twice would be a duplicate."""
    rng = Random()
    enterprise = people.make_employers(rng, [(COUNTY, "安阳县")])[0]
    items = [certification("master"), item("living_allowance")]
    talent, handler = people.make_person(rng), people.make_person(rng)
    return Draft(rng, talent, items, employer=enterprise, handler=handler).body()
