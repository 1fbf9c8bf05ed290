"""Intake, composed: its database, its handlers, its pages."""

from libs.common.asyncapi import document
from libs.common.crypto import Vault
from libs.common.db import Database
from libs.common.events import (
    ApplicationAccepted,
    ApplicationNotAccepted,
    ApplicationReceived,
    ApplicationTransferred,
    ApplicationWithdrawn,
    CorrectionRequested,
    EmployerAffiliated,
    EmployerListed,
    EmployerStruck,
    Event,
    PeopleResolved,
    PromiseMissed,
)
from libs.common.inbox import Inbox
from libs.common.packs import Packs
from libs.common.service import Service, open_bus
from libs.common.settings import Settings
from libs.common.web import create_app
from services.intake.api import (
    applications,
    batch,
    candidates,
    changes,
    directories,
    materials,
    notices,
    people,
    policy,
)
from services.intake.api.group import GroupCommit
from services.intake.applications import Desk
from services.intake.feedback import PROJECTION_TABLES, Feedback
from services.intake.notices import NOTICE_END, on_end
from services.intake.promises import PROMISE, Promises
from services.intake.settlement import LAPSE

EMITS: tuple[type[Event], ...] = (
    ApplicationReceived,
    CorrectionRequested,
    ApplicationAccepted,
    ApplicationNotAccepted,
    ApplicationTransferred,
    ApplicationWithdrawn,
    PromiseMissed,
    EmployerAffiliated,
    EmployerListed,
    EmployerStruck,
    PeopleResolved,
)


def create(settings: Settings) -> Service:
    """Intake, ready to be hosted. Raises SettingsMissing."""
    database = Database(settings.database_url("intake"))
    packs = Packs(database, settings.policies)
    current, retired = settings.vault()
    desk = Desk(Vault(current, retired), packs)
    handlers = Feedback(packs).handlers()

    async def not_ready() -> list[str]:
        return await service.not_ready()

    app = create_app(
        "intake",
        title="洹泉 · 受理",
        description="统一受理人才服务申请：收件、一次性告知、受理、转办，并集中反馈办理结果。",
        settings=settings,
        routers=[
            each.router
            for each in (applications, batch, materials, changes, people, policy, candidates, directories, notices)
        ],
        asyncapi=lambda: document("intake", emits=EMITS, hears=handlers),
        not_ready=not_ready,
    )
    app.state.desk, app.state.group = desk, GroupCommit(database, desk)
    service = Service(
        name="intake",
        settings=settings,
        database=database,
        bus=open_bus(settings),
        inbox=Inbox(handlers),
        topics=tuple(dict.fromkeys(event.topic for event in handlers)),
        due={LAPSE: desk.on_lapse, PROMISE: Promises(packs).on_day, NOTICE_END: on_end},
        app=app,
        packs=packs,
        projection=(PROJECTION_TABLES, handlers),
    )
    return service
