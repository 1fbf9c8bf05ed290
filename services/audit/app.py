"""Composition root of audit."""

from libs.common.asyncapi import document
from libs.common.db import Database
from libs.common.events import EVENTS, TOPICS
from libs.common.inbox import Inbox
from libs.common.packs import Packs
from libs.common.service import Service, open_bus
from libs.common.settings import Settings
from libs.common.web import create_app
from services.audit.anchors import ANCHOR, Anchorage
from services.audit.api import router
from services.audit.handlers import on_records
from services.audit.measures import measures
from services.audit.supervision import HANDLERS, PROJECTION_TABLES


def create(settings: Settings) -> Service:
    """The audit service, not yet running. Raises SettingsMissing."""
    database = Database(settings.database_url("audit"))
    anchorage = Anchorage(settings.home)
    packs = Packs(database, settings.policies)

    async def not_ready() -> list[str]:
        return await service.not_ready()

    app = create_app(
        "audit",
        title="审计与督查",
        description="全部事件的链式留痕及其核验；各部门、各级财政办理时限的督查。只读。",
        settings=settings,
        routers=[router],
        asyncapi=lambda: document("audit", emits=(), hears=EVENTS),
        not_ready=not_ready,
    )
    service = Service(
        name="audit",
        settings=settings,
        database=database,
        bus=open_bus(settings),
        inbox=Inbox(every=on_records),
        topics=TOPICS,
        due={ANCHOR: anchorage.on_anchor_due},
        app=app,
        packs=packs,
        measures=measures(packs, settings.home),
        projection=(PROJECTION_TABLES, HANDLERS),
        batches_at_once=1,  # there is one chain: a second batch would wait for it with a connection in its hand
    )
    return service
