"""Who stands behind a payee account: asked of intake at the moment of use, and kept by nobody but the sealed bank file.

Money goes to an account of the beneficiary and to no other. Both references are led to the person they stand for today,
so a record merged meanwhile changes nothing.

`POST /intake/v1/people:resolve` is the single synchronous call between services (DESIGN §5).
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

import httpx
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from libs.common.auth import ServiceTokens
from libs.common.errors import DomainError, Unavailable
from libs.common.settings import Settings
from libs.common.telemetry import child_of, current_traceparent

log = structlog.get_logger()

MOST_REFS = 500
SECONDS = 30
PURPOSE = "兑现支付"
FIELDS = ("payee_account",)


class PayeeAccountUnknown(DomainError):
    """422: intake knows no such payee account."""

    status, code, title = 422, "payee-account-unknown", "受理平台没有该收款账户"
    detail = "请先在受理平台为受益人登记收款账户，再以登记所得的引用办理。"
    semantic = True


class PayeeNotTheBeneficiary(DomainError):
    """422: the account is somebody else's."""

    status, code, title = 422, "payee-not-the-beneficiary", "收款账户不属于受益人"
    detail = "补贴只发放到受益人本人账户。请核对引用，或先在受理平台为受益人登记本人账户。"
    semantic = True


@dataclass(frozen=True, slots=True)
class Payee:
    """An account as the bank knows it, and whose it is."""

    account_number: str
    holder: str
    branch_number: str
    person: UUID


@dataclass(frozen=True, slots=True)
class Resolved:
    """What intake answered: the accounts, and the person that each person's reference leads to."""

    accounts: Mapping[UUID, Payee] = field(default_factory=dict)
    people: Mapping[UUID, UUID] = field(default_factory=dict)

    def payee(self, account: UUID, beneficiary: UUID) -> Payee:
        """The beneficiary's account. Raises PayeeAccountUnknown, PayeeNotTheBeneficiary."""
        payee = self.accounts.get(account)
        if payee is None:
            raise PayeeAccountUnknown
        if payee.person != self.people.get(beneficiary):
            raise PayeeNotTheBeneficiary
        return payee


class _Account(BaseModel):
    model_config = ConfigDict(extra="ignore")
    holder: str
    account_number: str
    branch_number: str


class _Found(BaseModel):
    model_config = ConfigDict(extra="ignore")
    ref: UUID
    kind: Literal["person", "payee_account"]
    person: UUID
    payee_account: _Account | None = None


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")
    items: list[_Found]


class Payees:
    """Asks intake, with finance's own token. `transport` stands in for the network in tests."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = settings.intake_url
        self._tokens = ServiceTokens(settings, "finance")
        self._transport = transport
        self._trusted = httpx.create_ssl_context()  # reading the authorities anew for each question took 50 ms

    async def resolve(self, wanted: Iterable[UUID | None]) -> Resolved:
        """What stands behind references of accounts and people; what intake does not know is absent.

        Raises Unavailable.
        """
        refs = sorted({ref for ref in wanted if ref is not None})
        if not refs:
            return Resolved()
        found: list[_Found] = []
        try:
            async with self._client() as client:
                for start in range(0, len(refs), MOST_REFS):
                    found += await self._ask(client, refs[start : start + MOST_REFS])
        except (httpx.HTTPError, ValidationError, OSError) as error:
            # The answer's text holds names and numbers: only the kind of failure may be told.
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
            log.warning("intake does not resolve payees", error=type(error).__name__, status=status)
            raise Unavailable(seconds=5) from None
        accounts = {
            one.ref: Payee(account.account_number, account.holder, account.branch_number, one.person)
            for one in found
            if (account := one.payee_account) is not None
        }
        return Resolved(accounts, {one.ref: one.person for one in found if one.kind == "person"})

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._url, timeout=SECONDS, transport=self._transport, verify=self._trusted)

    async def _ask(self, client: httpx.AsyncClient, refs: Sequence[UUID]) -> list[_Found]:
        token = await asyncio.to_thread(self._tokens.token)
        answer = await client.post(
            "/intake/v1/people:resolve",
            json={"refs": [str(ref) for ref in refs], "fields": FIELDS, "purpose": PURPOSE},
            headers={"Authorization": f"Bearer {token}", "traceparent": current_traceparent() or child_of(None)},
        )
        return _Answer.model_validate_json(answer.raise_for_status().content).items
