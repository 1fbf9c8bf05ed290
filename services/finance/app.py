"""How finance is put together."""

from libs.common.asyncapi import document
from libs.common.crypto import Vault
from libs.common.db import Database
from libs.common.events import (
    BenefitApproved,
    EmployerAffiliated,
    Event,
    FiscalSettlementClosed,
    InstalmentReviewed,
    PayeeAccountChanged,
    PayoutBounced,
    PayoutCancelled,
    PayoutOrdered,
    PayoutSent,
    PayoutSettled,
    SlaBreached,
)
from libs.common.inbox import Inbox
from libs.common.packs import Packs
from libs.common.service import Service, open_bus
from libs.common.settings import Settings
from libs.common.web import create_app
from services.finance import entitlements, payouts
from services.finance.api import bank, books, orders, quotas, reviews
from services.finance.handlers import Handlers
from services.finance.measures import measures
from services.finance.payees import Payees

EMITS: tuple[type[Event], ...] = (
    PayoutOrdered,
    PayoutSent,
    PayoutSettled,
    PayoutBounced,
    PayoutCancelled,
    InstalmentReviewed,
    FiscalSettlementClosed,
    SlaBreached,
)
HEARS: tuple[type[Event], ...] = (BenefitApproved, PayeeAccountChanged, EmployerAffiliated)


def create(settings: Settings) -> Service:
    """The finance service of a deployment. Raises SettingsMissing."""
    database = Database(settings.database_url("finance"))
    packs = Packs(database, settings.policies)
    handlers = Handlers(packs)

    async def not_ready() -> list[str]:
        return await service.not_ready()

    app = create_app(
        "finance",
        title="洹泉 · 财政兑现",
        description="待遇兑现、支付令、银行批量文件和回盘、复式账、市县结算和对账。金额单位为分。",
        settings=settings,
        routers=[orders.router, reviews.router, bank.router, quotas.router, books.router],
        asyncapi=lambda: document("finance", emits=EMITS, hears=HEARS),
        not_ready=not_ready,
    )
    current, retired = settings.vault()
    app.state.vault = Vault(current, retired)
    app.state.payees = Payees(settings)
    service = Service(
        name="finance",
        settings=settings,
        database=database,
        bus=open_bus(settings),
        inbox=Inbox(
            {
                BenefitApproved: handlers.on_benefit_approved,
                PayeeAccountChanged: handlers.on_payee_account_changed,
                EmployerAffiliated: handlers.on_employer_affiliated,
            }
        ),
        topics=tuple(dict.fromkeys(event.topic for event in HEARS)),
        due={entitlements.INSTALMENT: handlers.on_instalment_due, payouts.DEADLINE: payouts.on_deadline},
        app=app,
        packs=packs,
        measures=measures(packs),
    )
    return service
