"""The foot of the page at `/` in development: a ready token for each role, and a `curl` that works when pasted."""

import json
import secrets
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from deploy.local import Addresses
from deploy.sample.any_city import AnyCity
from deploy.sample.policy import Json, Policy
from deploy.served import served_policy
from libs.common.auth import TokenIssuer
from libs.common.settings import Settings

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


def visitors(policy: Policy) -> Sequence[Visitor]:
    """One of each kind; those who belong to an org unit, to one of the policy's example treasury."""
    here, departments = policy.example, policy.departments
    one, other = departments[0], departments[1 % len(departments)]
    return (
        Visitor("portal", "省级门户", "提交一份申请", "/intake/v1/applications", posts=True),
        Visitor("department", "部门系统", "听取任务", "/workflow/v1/tasks:poll?wait=0", f"{here}/{one}"),
        Visitor("talent", "人才", "查看本人的申请", "/intake/v1/applications"),
        Visitor("handler", "经办人", "查看经办的申请", "/intake/v1/applications"),
        Visitor(
            "window_clerk", "综窗受理人员", "查看本地的申请", "/intake/v1/applications", f"{here}/government_services"
        ),
        Visitor("specialist", "服务专员", "查看本部门任务", "/workflow/v1/tasks?limit=5", f"{here}/{other}"),
        Visitor("talent_office", "人才办", "查看待决定事项", "/workflow/v1/decisions", f"{here}/talent_office"),
        Visitor("treasury", "财政", "查看支付令", "/finance/v1/orders?limit=5", f"{here}/finance"),
        Visitor("housing", "住房管理", "查看可选房源", "/housing/v1/flats?status=available", f"{here}/housing"),
        Visitor("supervisor", "督查", "查看各部门办理情况", "/audit/v1/supervision/summary"),
        Visitor("auditor", "审计", "核验留痕", "/audit/v1/trail:verify", posts=True),
        Visitor("ops", "运行维护", "查看运行指标", "/audit/metrics"),
    )


def first_page(addresses: Addresses, settings: Settings) -> str:
    """HTML with a token and a command for each kind of user, made anew at each visit. Raises IssuerRefused in
    production."""  # fmt: skip
    issuer, known, policy = TokenIssuer(settings), _known_people(settings.home), served_policy(settings.policies)
    rows = "".join(_row(visitor, addresses, issuer, known, policy) for visitor in visitors(policy))
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


def _row(visitor: Visitor, addresses: Addresses, issuer: TokenIssuer, known: Json, policy: Policy) -> str:
    person = known.get(visitor.role)
    token = issuer.token(visitor.role, org_unit=visitor.unit, person=person)
    command = shlex.join(_command(visitor, addresses, token, policy))
    unit = f" <code>{escape(visitor.unit)}</code>" if visitor.unit else ""
    alone = "（样本数据运行之后，此处为样本中的一人）" if visitor.role in {"talent", "handler"} and not person else ""
    return (
        f"<details><summary><b>{escape(visitor.title)}</b> <code>{escape(visitor.role)}</code>{unit}："
        f"{escape(visitor.asks)}{alone}</summary><pre>{escape(command)}</pre>"
        f"<p>令牌：<code>{escape(token)}</code></p></details>"
    )


def _command(visitor: Visitor, addresses: Addresses, token: str, policy: Policy) -> Iterator[str]:
    service = visitor.path.split("/", 2)[1]
    yield from ("curl", "-sS", "-H", f"Authorization: Bearer {token}")
    if visitor.role == "portal":
        yield from ("-H", f"Idempotency-Key: page-{secrets.token_hex(8)}")
    if visitor.posts:
        body = _filing(policy) if visitor.role == "portal" else {}
        yield from ("-H", "Content-Type: application/json", "-d", json.dumps(body, ensure_ascii=False))
    yield addresses.of(service) + visitor.path


def _filing(policy: Policy) -> Json:
    """A filing of somebody new at each visit: the same person twice would be a duplicate."""
    return AnyCity(policy, secrets.randbits(64)).usual(policy.example).body()
