"""Who calls: bearer tokens (JWT, RFC 9068 in spirit), the roles and their scopes, and the tokens of services.

A token's claims are `sub`, `client_id`, `role`, `scope` (space between), `org_unit` ("<treasury>/<department>") and
`person` (a person_ref), beside `iss`, `aud`, `exp`, `iat`, `nbf`. A scope counts only where the role may hold it, so
the separation of duties (三员分立) does not depend on the issuer.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import structlog
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, import_key
from joserfc.jws import extract_compact

from libs.common.errors import Unauthenticated, Unavailable
from libs.common.identity import invisible_characters
from libs.common.settings import Settings, SettingsMissing, variable, write_once

log = structlog.get_logger()

ALGORITHMS = ("ES256", "RS256", "EdDSA", "Ed25519")  # never "none", never an HMAC
LEEWAY_SECONDS = 30
REREAD_SECONDS = 10.0
STALE_SECONDS = 300.0
SERVICE_TOKEN_SECONDS = 300
CLOCK_SECONDS = 5.0  # the wall clock was set, if it moved so much against the monotonic one
_ORG_UNIT = re.compile(r"(?P<treasury>[0-9]{6})/(?P<department>[a-z][a-z0-9_]{0,63})")

SCOPES: Mapping[str, str] = {
    "intake:file": "提交、补正、撤回申请",
    "intake:read": "查阅申请及材料",
    "intake:material": "补充材料",
    "intake:assist": "窗口代为受理",
    "intake:screen": "比对免申即享的候选人",
    "intake:directory": "登记企业目录",
    "people:resolve": "按引用解析个人信息（逐次留痕）",
    "people:manage": "维护人员档案",
    "workflow:read": "查阅办件和任务",
    "workflow:work": "办理任务并反馈结果",
    "workflow:decide": "提出和复核认定",
    "finance:read": "查阅兑现和账目",
    "finance:pay": "支付兑现资金",
    "finance:settle": "关账和市县结算",
    "finance:review": "复核后续各期的发放条件",
    "housing:read": "查阅房源和租约",
    "housing:manage": "管理房源和配租",
    "housing:choose": "选房",
    "audit:read": "查阅审计链和督查",
    "ops:read": "查看运行情况",
    "ops:repair": "重放、放行、修复",
}

_SEES = {"intake:read", "workflow:read", "finance:read", "housing:read"}
ROLES: Mapping[str, frozenset[str]] = {
    role: frozenset(scopes)
    for role, scopes in {
        "portal": {"intake:file", "intake:read", "intake:material"},
        "department": {"intake:read", "intake:directory", "workflow:read", "workflow:work"},
        "talent": {*_SEES, "intake:file", "intake:material", "housing:choose"},
        "handler": {"intake:file", "intake:read", "intake:material", "workflow:read", "finance:read"},
        "window_clerk": {"intake:file", "intake:read", "intake:material", "intake:assist", "workflow:read"},
        "specialist": {"intake:read", "intake:directory", "workflow:read", "workflow:work"},
        "talent_office": {
            *_SEES,
            "intake:screen",
            "intake:directory",
            "people:resolve",
            "people:manage",
            "workflow:decide",
            "finance:review",
        },
        "treasury": {"finance:read", "finance:pay", "finance:settle"},
        "housing": {"housing:read", "housing:manage", "housing:choose"},  # an officer may choose for a talent
        "supervisor": {*_SEES, "audit:read"},
        "auditor": {*_SEES, "audit:read"},
        "ops": {"ops:read", "ops:repair"},
        "service": {"people:resolve"},
    }.items()
}
# A token of these roles without an org unit is refused: nothing would bound what it sees.
ORG_UNIT_ROLES = frozenset({"department", "specialist", "window_clerk", "talent_office", "treasury", "housing"})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. `client` is the system (idempotency keys are its own), `subject` the person or system behind it."""

    subject: str
    client: str
    role: str
    scopes: frozenset[str]
    treasury: str | None = None
    department: str | None = None
    person: str | None = None

    @property
    def sees_everything(self) -> bool:
        """Whether every record is in view, whatever its org unit (supervisor, auditor, a service of ours)."""
        return self.role in {"supervisor", "auditor", "service"}

    @property
    def org_unit(self) -> str | None:
        """`<treasury>/<department>`, or None."""
        return f"{self.treasury}/{self.department}" if self.treasury else None


class Verifier:
    """Checks tokens against the public keys of a JWKS file or URL.

    The keys are kept for five minutes and read again for an unknown `kid`, at most every ten seconds. A token that was
    given for more than `hours` is refused: nobody can take one back.
    """

    def __init__(
        self,
        jwks: str,
        *,
        issuer: str,
        audience: str,
        hours: float = 24,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._source = jwks
        self._transport = transport
        self._longest = hours * 3600
        self._claims = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            role={"essential": True},
        )
        self._keys: KeySet | None = None
        self._read_at = -STALE_SECONDS
        self._tried_at = -REREAD_SECONDS
        self._reading = asyncio.Lock()

    async def verify(self, token: str) -> Principal:
        """The caller behind a token. Raises Unauthenticated; Unavailable where no key was ever read."""
        try:
            keys = await self._keys_for(_kid(token))
            decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
            self._claims.validate(decoded.claims)
            if decoded.claims["exp"] - decoded.claims["iat"] > self._longest:
                raise ValueError("exp")
            return _principal(decoded.claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            log.info("token refused", why=type(error).__name__)
            raise Unauthenticated(presented=True) from None

    async def _keys_for(self, kid: str) -> KeySet:
        if self._wanting(kid):
            async with self._reading:
                # Without any key there is nothing to protect from a flood of unknown ones: ask again soon.
                pause = REREAD_SECONDS if self._keys else 1.0
                if self._wanting(kid) and time.monotonic() - self._tried_at >= pause:
                    await self._read()
        if self._keys is None:
            raise Unavailable(seconds=5)
        return self._keys

    def _wanting(self, kid: str) -> bool:
        stale = time.monotonic() - self._read_at > STALE_SECONDS
        return stale or self._keys is None or not any(key.kid == kid for key in self._keys)

    async def _read(self) -> None:
        self._tried_at = time.monotonic()
        try:
            document = await self._fetched() if "://" in self._source else await asyncio.to_thread(self._on_disk)
            self._keys = KeySet.import_key_set(json.loads(document))
            self._read_at = self._tried_at
        except (OSError, ValueError, KeyError, TypeError, JoseError, httpx.HTTPError) as error:
            log.warning("public keys cannot be read", source=self._source, why=type(error).__name__)

    async def _fetched(self) -> str:
        async with httpx.AsyncClient(timeout=5, transport=self._transport) as client:
            return (await client.get(self._source)).raise_for_status().text

    def _on_disk(self) -> str:
        return Path(self._source).read_text(encoding="utf-8")


def _kid(token: str) -> str:
    kid = extract_compact(token.encode("ascii")).headers()["kid"]
    if not isinstance(kid, str):
        raise TypeError("kid")
    return kid


def _principal(claims: Mapping[str, Any]) -> Principal:
    unit = _ORG_UNIT.fullmatch(claims["org_unit"]) if claims.get("org_unit") else None
    role, person, scopes = claims["role"], claims.get("person"), claims.get("scope", "")
    if (claims.get("org_unit") and unit is None) or (role in ORG_UNIT_ROLES and unit is None):
        raise ValueError("org_unit")
    if not isinstance(person, str | None) or not isinstance(scopes, str):
        raise TypeError("person, scope")
    # Two officers are two subjects: the same person under two spellings would confirm their own proposals.
    subject: str = claims["sub"]
    if subject != subject.strip() or invisible_characters(subject):
        raise ValueError("sub")
    return Principal(
        subject=subject,
        client=str(claims.get("client_id") or subject),
        role=role,
        scopes=frozenset(scopes.split()) & ROLES[role],
        treasury=unit["treasury"] if unit else None,
        department=unit["department"] if unit else None,
        person=person,
    )


class IssuerRefused(Exception):
    """The development issuer was asked to work in production, or for a role or unit that does not exist."""


class TokenIssuer:
    """Signs tokens for development with a key of its own below `home`. Raises IssuerRefused in production mode."""

    def __init__(self, settings: Settings) -> None:
        if settings.mode == "production":
            raise IssuerRefused("the development issuer does not work in production mode")
        self._settings = settings
        self._key = development_key(settings)

    def token(
        self,
        role: str,
        *,
        org_unit: str | None = None,
        subject: str | None = None,
        person: str | None = None,
        client: str | None = None,
        hours: float = 8,
    ) -> str:
        """A token for one role, with all scopes of it. `hours` may be negative: a token expired from the start.

        Raises IssuerRefused for an unknown role, a malformed org unit, or none where the role needs one.
        """
        if role not in ROLES:
            raise IssuerRefused(f"no role {role!r}; there are {', '.join(ROLES)}")
        if org_unit is not None and _ORG_UNIT.fullmatch(org_unit) is None:
            raise IssuerRefused(
                f"{org_unit!r} is no org unit; write <treasury>/<department>, as 410522/public_security"
            )
        if org_unit is None and role in ORG_UNIT_ROLES:
            raise IssuerRefused(f"the role {role} belongs to an org unit, as 410522/public_security")
        subject = subject or ":".join(filter(None, [role, org_unit]))
        given = {"client_id": client or subject, "role": role, "org_unit": org_unit, "person": person}
        return sign(self._settings, self._key, subject, given, seconds=int(hours * 3600))


class ServiceTokens:
    """The short-lived tokens that a service signs for itself: five minutes, signed anew a minute before the end."""

    def __init__(self, settings: Settings, service: str) -> None:
        self._settings = settings
        self._service = service
        self._key: ECKey | None = None
        self._token = ""
        self._good_until = 0.0
        self._clock = 0.0

    def token(self) -> str:
        """A token that is good for a minute at least, by the clock as it is now: one that was signed while the clock
        was wrong is not used on. Raises SettingsMissing or OSError where there is no key."""
        now = time.monotonic()
        clock = time.time() - now
        if now >= self._good_until or abs(clock - self._clock) > CLOCK_SECONDS:
            self._key = self._key or _service_key(self._settings)
            given = {"client_id": self._service, "role": "service"}
            self._token = sign(self._settings, self._key, self._service, given, seconds=SERVICE_TOKEN_SECONDS)
            self._good_until = now + SERVICE_TOKEN_SECONDS - 60
            self._clock = clock
        return self._token


def sign(settings: Settings, key: ECKey, subject: str, given: Mapping[str, Any], *, seconds: int) -> str:
    """A signed token for `subject`, with the scopes of the role in `given`."""
    now = int(time.time())
    claims = {name: value for name, value in given.items() if value is not None} | {
        "iss": settings.issuer,
        "aud": settings.audience,
        "sub": subject,
        "scope": " ".join(sorted(ROLES[given["role"]])),
        "iat": now,
        "nbf": now,
        "exp": now + seconds,
    }
    return jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key, algorithms=["ES256"])


def development_key(settings: Settings) -> ECKey:
    """The development key below `home/issuer/`: made on first use, the private file 0600, its public half beside it."""
    private = settings.home / "issuer" / "private.json"
    if not private.exists():
        private.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_once(private, json.dumps(ECKey.generate_key("P-256", private=True).as_dict(private=True)))
    key = _read_key(private)
    public, text = private.with_name("jwks.json"), json.dumps(KeySet([key]).as_dict(private=False))
    if not public.exists() or public.read_text(encoding="utf-8") != text:
        draft = public.with_name(f"jwks.json.{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        draft.replace(public)
    return key


def _service_key(settings: Settings) -> ECKey:
    own = settings.home / "issuer" / "private.json"
    if settings.mode == "development" and settings.service_key == own:
        return development_key(settings)
    if settings.service_key is None:
        raise SettingsMissing([variable("service_key")])
    return _read_key(settings.service_key)


def _read_key(path: Path) -> ECKey:
    key = import_key(json.loads(path.read_text(encoding="utf-8")), "EC")
    key.ensure_kid()
    return key
