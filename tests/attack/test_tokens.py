"""Tokens that nobody should believe, over real HTTP: each is 401 with the same words, and the service lives on."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from libs.common.auth import TokenIssuer, development_key
from libs.common.settings import Settings
from tests.conftest import System
from tests.test_access import packed, unpadded

Json = dict[str, Any]


class Forger:
    """Has read a good token and the public key, and signs with keys of their own."""

    def __init__(self, system: System) -> None:
        self.settings = Settings(home=system.home)
        self.key = development_key(self.settings)
        self.good = TokenIssuer(self.settings).token("supervisor")
        self.header, self.claims = (json.loads(unpadded(part)) for part in self.good.split(".")[:2])
        self.own = ECKey.generate_key("P-256", auto_kid=True)

    def under(self, **header: Any) -> str:
        """The good token's claims and signature under another header."""
        _, claims, signature = self.good.split(".")
        return f"{packed({**self.header, **header})}.{claims}.{signature}"

    def signed(self, **claims: Any) -> str:
        """Signed by our own issuer, with other claims."""
        return jwt.encode(self.header, {**self.claims, **claims}, self.key, algorithms=["ES256"])

    def mine(self, **header: Any) -> str:
        return jwt.encode({"alg": "ES256", **header}, self.claims, self.own, algorithms=["ES256"])

    def mac(self, alg: str, secret: bytes) -> str:
        signing = f"{packed({'alg': alg, 'kid': self.key.kid})}.{packed(self.claims)}"
        mac = hmac.digest(secret, signing.encode(), {"HS256": "sha256", "HS512": "sha512"}[alg])
        return f"{signing}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


NOW = int(time.time())
FORGED: dict[str, Callable[[Forger], str]] = {
    "expired": lambda f: f.signed(exp=NOW - 60),
    "for ten years": lambda f: f.signed(exp=NOW + 10 * 365 * 86_400),
    "never expiring": lambda f: f.signed(exp=None),
    "expiring at no number": lambda f: f.signed(exp="9" * 20),
    "from the future": lambda f: f.signed(iat=NOW + 3600, nbf=NOW + 3600),
    "valid from the future": lambda f: f.signed(nbf=NOW + 3600),
    "of another issuer": lambda f: f.signed(iss="https://elsewhere.example"),
    "of several issuers": lambda f: f.signed(iss=[f.settings.issuer]),
    "for another audience": lambda f: f.signed(aud="another"),
    "of an unknown key": lambda f: f.mine(kid="unknown"),
    "of an own key under our kid": lambda f: f.mine(kid=f.key.kid),
    "that brings its own key": lambda f: f.mine(kid=f.key.kid, jwk=f.own.as_dict(private=False)),
    "that names where its keys are": lambda f: f.under(jku="http://127.0.0.1:1/jwks.json", x5u="http://127.0.0.1:1/c"),
    "whose kid is a path": lambda f: f.under(kid="../../../../dev/null"),
    "whose kid is a query": lambda f: f.under(kid="' OR 1=1 --"),
    "whose kid is no text": lambda f: f.under(kid=["a"]),
    "whose kid is null": lambda f: f.under(kid=None),
    "unsigned": lambda f: f"{packed({**f.header, 'alg': 'none'})}.{f.good.split('.')[1]}.",
    "unsigned, in capitals": lambda f: f"{packed({**f.header, 'alg': 'nOnE'})}.{f.good.split('.')[1]}.",
    "unsigned under a signature": lambda f: f.under(alg="none"),
    "without its signature": lambda f: f.good.rsplit(".", 1)[0] + ".",
    "with an empty signature of zeros": lambda f: f"{f.good.rsplit('.', 1)[0]}.{'A' * 86}",
    "by HMAC with the public key as PEM": lambda f: f.mac("HS256", f.key.as_pem(private=False)),
    "by HMAC with the public key as JSON": lambda f: f.mac("HS512", json.dumps(f.key.as_dict(private=False)).encode()),
    "of an algorithm that is none of ours": lambda f: f.under(alg="ES512"),
    "of no algorithm": lambda f: f.under(alg=None),
    "with a critical extension": lambda f: f.under(crit=["exp"], b64=False),
    "of other claims": lambda f: ".".join(
        [f.good.split(".")[0], packed({**f.claims, "role": "ops"}), f.good.split(".")[2]]
    ),
    "whose claims are a list": lambda f: f"{f.good.split('.')[0]}.{packed([1])}.{f.good.split('.')[2]}",
    "whose claims are deep": lambda f: f"{f.good.split('.')[0]}.{packed(_deep())}.{f.good.split('.')[2]}",
    "encrypted": lambda _: ".".join([packed({"alg": "dir", "enc": "A128GCM"}), "", "a", "a", "a"]),
    "as JSON": lambda _: json.dumps({"payload": "e30", "signatures": []}),
    "of dots": lambda _: "." * 20,
    "of 32 KiB": lambda f: f.signed(padding="x" * 32_000)[:-8],
    "twice": lambda f: f"{f.good}, Bearer {f.good}",
}


def _deep() -> Json:
    claims: Json = {}
    for _ in range(500):
        claims = {"a": claims}
    return claims


@pytest.fixture(scope="module")
def forger(system: System) -> Forger:
    return Forger(system)


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_token_is_no_token(system: System, forger: Forger, kind: str) -> None:
    address = f"{system.addresses.of('audit')}/audit/v1/anchors/head"
    refused = httpx.get(address, headers={"authorization": f"Bearer {FORGED[kind](forger)}"})
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert httpx.get(address, headers={"authorization": f"Bearer {forger.good}"}).status_code == 200
