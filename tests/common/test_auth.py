"""Tokens: only those that our issuer signed, for us, now, with a proper algorithm, say who calls."""

import base64
import hmac
import json
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jws, jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey

from libs.common import auth
from libs.common.auth import ORG_UNIT_ROLES, ROLES, SCOPES, IssuerRefused, ServiceTokens, TokenIssuer, Verifier
from libs.common.errors import Unauthenticated, Unavailable
from libs.common.settings import Settings, SettingsMissing

UNIT = "410522/public_security"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def key(settings: Settings) -> ECKey:
    return auth.development_key(settings)


@pytest.fixture
def verifier(settings: Settings, key: ECKey) -> Verifier:
    return a_verifier(settings)


def a_verifier(settings: Settings, *, hours: float = 24) -> Verifier:
    assert settings.jwks
    assert settings.issuer
    return Verifier(settings.jwks, issuer=settings.issuer, audience=settings.audience, hours=hours)


def claims(settings: Settings, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    given: dict[str, Any] = {
        "iss": settings.issuer,
        "aud": settings.audience,
        "sub": "zhang",
        "client_id": "console",
        "role": "specialist",
        "scope": "workflow:read workflow:work",
        "org_unit": UNIT,
        "iat": now,
        "nbf": now,
        "exp": now + 600,
    }
    return {name: value for name, value in (given | changes).items() if value is not None}


def encoded(key: Key, given: dict[str, Any], alg: str = "ES256") -> str:
    return jwt.encode({"alg": alg, "kid": key.kid}, given, key, algorithms=[alg])


async def test_a_token_that_was_given_for_longer_than_the_deployment_allows_is_refused(
    settings: Settings, key: ECKey
) -> None:
    given = encoded(key, claims(settings))  # for ten minutes
    assert (await a_verifier(settings, hours=1 / 6).verify(given)).subject == "zhang"
    with pytest.raises(Unauthenticated):
        await a_verifier(settings, hours=1 / 12).verify(given)


async def test_a_good_token_says_who_calls(settings: Settings, key: ECKey, verifier: Verifier) -> None:
    caller = await verifier.verify(encoded(key, claims(settings, person="p-1")))
    assert (caller.subject, caller.client, caller.role) == ("zhang", "console", "specialist")
    assert (caller.treasury, caller.department, caller.org_unit) == ("410522", "public_security", UNIT)
    assert caller.person == "p-1"
    assert caller.scopes == {"workflow:read", "workflow:work"}
    assert not caller.sees_everything


NOW = int(time.time())


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW - 60},
        {"exp": None},
        {"exp": "tomorrow"},
        {"nbf": NOW + 3600},
        {"iat": NOW + 3600},
        {"iat": None},
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"aud": "another-platform"},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "zhang "},
        {"sub": "\u3000zhang"},
        {"sub": "zh\u200bang"},
        {"sub": "zhang\x00"},
        {"role": None},
        {"role": "emperor"},
        {"role": ["ops"]},
        {"org_unit": "everywhere"},
        {"org_unit": None},
        {"org_unit": "４１０５２２/public_security"},  # another text, and so another unit than the one it looks like
        {"org_unit": ["410522/public_security"]},
        {"scope": ["finance:pay"]},
        {"person": {"ref": 1}},
    ],
    ids="-".join,
)
async def test_a_token_with_a_wrong_claim_is_refused(
    settings: Settings, key: ECKey, verifier: Verifier, changes: dict[str, Any]
) -> None:
    with pytest.raises(Unauthenticated):
        await verifier.verify(encoded(key, claims(settings, **changes)))


async def test_clocks_may_differ_by_half_a_minute(settings: Settings, key: ECKey, verifier: Verifier) -> None:
    now = int(time.time())
    await verifier.verify(encoded(key, claims(settings, exp=now - 20)))
    await verifier.verify(encoded(key, claims(settings, iat=now + 20, nbf=now + 20)))


def hmac_with_the_public_key(settings: Settings, key: ECKey) -> str:
    header = b64(json.dumps({"alg": "HS256", "kid": key.kid}).encode())
    signing = f"{header}.{b64(json.dumps(claims(settings)).encode())}"
    mac = hmac.digest(key.as_pem(private=False), signing.encode(), "sha256")
    return f"{signing}.{b64(mac)}"


def unsigned(settings: Settings, key: ECKey) -> str:
    signed = encoded(key, claims(settings)).split(".")
    header = jws.extract_compact(encoded(key, claims(settings)).encode()).headers() | {"alg": "none"}
    return f"{b64(json.dumps(header).encode())}.{signed[1]}."


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def of_a_stranger(settings: Settings, key: ECKey) -> str:
    stranger = ECKey.generate_key("P-256", auto_kid=True)
    return encoded(stranger, claims(settings))


def of_a_stranger_under_our_kid(settings: Settings, key: ECKey) -> str:
    return encoded(ECKey.generate_key("P-256", {"kid": str(key.kid)}), claims(settings))


def of_a_weak_algorithm(settings: Settings, key: ECKey) -> str:
    return encoded(ECKey.generate_key("P-384", {"kid": str(key.kid)}), claims(settings), "ES384")


def of_another_family(settings: Settings, key: ECKey) -> str:
    return encoded(RSAKey.generate_key(2048, {"kid": str(key.kid)}), claims(settings), "RS256")


def without_kid(settings: Settings, key: ECKey) -> str:
    return jwt.encode({"alg": "ES256"}, claims(settings), key, algorithms=["ES256"])


def altered(settings: Settings, key: ECKey) -> str:
    header, _, signature = encoded(key, claims(settings)).split(".")
    return f"{header}.{b64(json.dumps(claims(settings, role='ops')).encode())}.{signature}"


@pytest.mark.parametrize(
    "make",
    [
        hmac_with_the_public_key,
        unsigned,
        of_a_stranger,
        of_a_stranger_under_our_kid,
        of_a_weak_algorithm,
        of_another_family,
        without_kid,
        altered,
        lambda _settings, _key: "",
        lambda _settings, _key: "a.b.c",
        lambda _settings, _key: "张三",
        lambda _settings, _key: "e30.e30.e30.e30.e30",
    ],
)
async def test_a_forged_token_is_refused(
    settings: Settings, key: ECKey, verifier: Verifier, make: Callable[[Settings, ECKey], str]
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await verifier.verify(make(settings, key))
    assert "invalid_token" in refused.value.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("key", "alg"),
    [(RSAKey.generate_key(2048, auto_kid=True), "RS256"), (OKPKey.generate_key("Ed25519", auto_kid=True), "Ed25519")],
    ids=["RS256", "Ed25519"],
)
async def test_an_outside_issuer_may_use_rsa_or_edwards_keys(settings: Settings, key: Key, alg: str) -> None:
    publish(settings, key)
    assert (await a_verifier(settings).verify(encoded(key, claims(settings), alg))).subject == "zhang"


async def test_the_older_name_of_edwards_signatures_still_holds(settings: Settings) -> None:
    key = OKPKey.generate_key("Ed25519", auto_kid=True)
    publish(settings, key)
    with pytest.warns(SecurityWarning):
        token = encoded(key, claims(settings), "EdDSA")
    with pytest.warns(SecurityWarning):
        assert (await a_verifier(settings).verify(token)).subject == "zhang"


def publish(settings: Settings, *keys: Key) -> None:
    assert settings.jwks
    path = Path(settings.jwks)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(KeySet(list(keys)).as_dict(private=False)))


async def test_a_new_key_is_taken_up_and_unknown_ones_do_not_make_us_read_in_a_loop(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (ECKey.generate_key("P-256", auto_kid=True) for _ in range(2))
    served = [first]
    asked = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(200, json=KeySet(list(served)).as_dict(private=False))

    url = "https://issuer.example/jwks.json"
    transport = httpx.MockTransport(answer)
    verifier = Verifier(url, issuer=str(settings.issuer), audience=settings.audience, transport=transport)
    await verifier.verify(encoded(first, claims(settings)))
    served.append(second)
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await verifier.verify(encoded(second, claims(settings)))
    assert asked == 1
    monkeypatch.setattr(auth, "REREAD_SECONDS", 0.0)
    await verifier.verify(encoded(second, claims(settings)))
    assert asked == 2


async def test_without_any_key_the_answer_is_that_we_cannot_tell(settings: Settings, key: ECKey) -> None:
    transport = httpx.MockTransport(lambda _request: httpx.Response(500))
    away = Verifier("https://issuer.example/k", issuer=str(settings.issuer), audience="huanquan", transport=transport)
    with pytest.raises(Unavailable):
        await away.verify(encoded(key, claims(settings)))


async def test_a_role_never_gets_a_scope_that_is_not_its_own(
    settings: Settings, key: ECKey, verifier: Verifier
) -> None:
    greedy = encoded(key, claims(settings, role="auditor", scope="audit:read finance:pay ops:repair"))
    assert (await verifier.verify(greedy)).scopes == {"audit:read"}


def test_an_auditor_neither_pays_nor_operates_nor_decides() -> None:
    watching = ROLES["auditor"] | ROLES["supervisor"]
    assert all(scope.endswith(":read") and not scope.startswith("ops:") for scope in watching)
    assert not ROLES["ops"] & (ROLES["treasury"] | ROLES["talent_office"] | watching)
    assert set().union(*ROLES.values()) == set(SCOPES)


async def test_the_development_issuer_makes_a_token_for_each_role(settings: Settings) -> None:
    issuer = TokenIssuer(settings)
    for role in ROLES:
        unit = UNIT if role in ORG_UNIT_ROLES else None
        caller = await a_verifier(settings).verify(issuer.token(role, org_unit=unit))
        assert caller.role == role
        assert caller.scopes == ROLES[role]
        assert caller.sees_everything == (role in {"supervisor", "auditor", "service"})


def test_the_private_key_is_for_its_owner_alone_and_stays_the_same(settings: Settings) -> None:
    TokenIssuer(settings)
    private = settings.home / "issuer" / "private.json"
    before = private.read_text()
    TokenIssuer(settings)
    assert private.read_text() == before
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert "d" not in json.loads((settings.home / "issuer" / "jwks.json").read_text())["keys"][0]


def test_the_development_issuer_refuses_production_and_nonsense(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(IssuerRefused, match="production"):
        TokenIssuer(Settings(mode="production", home=tmp_path))
    issuer = TokenIssuer(settings)
    with pytest.raises(IssuerRefused, match="no role"):
        issuer.token("emperor")
    with pytest.raises(IssuerRefused, match="no org unit"):
        issuer.token("department", org_unit="public_security")
    with pytest.raises(IssuerRefused, match="belongs to"):
        issuer.token("department")


async def test_a_service_signs_for_itself_and_keeps_the_token_until_it_nears_its_end(settings: Settings) -> None:
    tokens = ServiceTokens(settings, "finance")
    token = tokens.token()
    assert tokens.token() == token
    caller = await a_verifier(settings).verify(token)
    assert caller.subject == "finance"
    assert caller.scopes == {"people:resolve"}
    life = jws.extract_compact(token.encode())
    assert json.loads(life.payload or b"")["exp"] - time.time() <= 300


async def test_a_token_signed_while_the_clock_was_wrong_is_not_used_once_it_is_right(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, right = ServiceTokens(settings, "finance"), time.time
    for seconds in (600, -600):
        with monkeypatch.context() as wrong:
            wrong.setattr(time, "time", lambda seconds=seconds: right() + seconds)
            tokens.token()
        assert (await a_verifier(settings).verify(tokens.token())).subject == "finance"


def test_in_production_a_service_signs_with_the_key_it_was_given(tmp_path: Path) -> None:
    with pytest.raises(SettingsMissing, match="HUANQUAN_SERVICE_KEY"):
        ServiceTokens(Settings(mode="production", home=tmp_path), "finance").token()
