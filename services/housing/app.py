"""Composition root of housing."""

from libs.common.asyncapi import document
from libs.common.db import Database
from libs.common.events import BenefitApproved, FlatHeld, FlatLeased, FlatReleased, LeaseEnded
from libs.common.inbox import Inbox
from libs.common.packs import Packs
from libs.common.service import Service, open_bus
from libs.common.settings import Settings
from libs.common.web import create_app
from services.housing.allocation import HOLD_EXPIRY, LEASE_END
from services.housing.api import router
from services.housing.handlers import Handlers, on_hold_expiry, on_lease_end

EMITS = (FlatHeld, FlatReleased, FlatLeased, LeaseEnded)
HEARS = (BenefitApproved,)


def create(settings: Settings) -> Service:
    """The housing service, not yet running. Raises SettingsMissing."""
    database = Database(settings.database_url("housing"))
    packs = Packs(database, settings.policies)
    handlers = Handlers(packs)

    async def not_ready() -> list[str]:
        return await service.not_ready()

    app = create_app(
        "housing",
        title="人才住房",
        description="人才周转房和人才公寓：房源、资格、选房锁定、租约。同一套房源任何时候只配给一人。",
        settings=settings,
        routers=[router],
        asyncapi=lambda: document("housing", emits=EMITS, hears=HEARS),
        not_ready=not_ready,
    )
    service = Service(
        name="housing",
        settings=settings,
        database=database,
        bus=open_bus(settings),
        inbox=Inbox({BenefitApproved: handlers.on_benefit_approved}),
        topics=tuple(dict.fromkeys(event.topic for event in HEARS)),
        due={HOLD_EXPIRY: on_hold_expiry, LEASE_END: on_lease_end},
        app=app,
        packs=packs,
    )
    return service
