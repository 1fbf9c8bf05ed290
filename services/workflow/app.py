"""Where workflow is put together."""

from libs.common.asyncapi import document
from libs.common.db import Database
from libs.common.events import (
    ApplicationAccepted,
    ApplicationClosed,
    ApplicationWithdrawn,
    BenefitApproved,
    CaseResumed,
    CaseSuspended,
    DeptAssigned,
    DeptCompleted,
    ObjectionConcluded,
    ObjectionReceived,
    PayeeAccountChanged,
    PromiseMissed,
    PublicNoticeOpened,
    PublicNoticeWithdrawn,
    SlaBreached,
    TalentCertified,
    WithdrawalIgnored,
)
from libs.common.inbox import Inbox
from libs.common.packs import Packs
from libs.common.service import Service, open_bus
from libs.common.settings import Settings
from libs.common.web import create_app
from services.workflow.api import routers
from services.workflow.assignment import DEADLINE
from services.workflow.feed import Bell
from services.workflow.handlers import Handlers

HEARS = (ApplicationAccepted, ApplicationWithdrawn, PromiseMissed)
EMITS = (
    DeptAssigned,
    DeptCompleted,
    CaseSuspended,
    CaseResumed,
    PublicNoticeOpened,
    PublicNoticeWithdrawn,
    ObjectionReceived,
    ObjectionConcluded,
    TalentCertified,
    BenefitApproved,
    PayeeAccountChanged,
    ApplicationClosed,
    WithdrawalIgnored,
    SlaBreached,
)


def create(settings: Settings) -> Service:
    """The workflow service. Raises SettingsMissing where the deployment lacks an address."""
    database = Database(settings.database_url("workflow"))
    packs = Packs(database, settings.policies)
    handlers = Handlers(packs)
    app = create_app(
        "workflow",
        title="办理与认定",
        description="已受理申请的部门办理、办理时限、人才认定、兑现批准和人才档案。",
        settings=settings,
        routers=routers,
        asyncapi=lambda: document("workflow", emits=EMITS, hears=HEARS),
        not_ready=lambda: service.not_ready(),  # noqa: PLW0108 - the service is made after its application
    )
    service = Service(
        name="workflow",
        settings=settings,
        database=database,
        bus=open_bus(settings),
        inbox=Inbox(
            {
                ApplicationAccepted: handlers.on_application_accepted,
                ApplicationWithdrawn: handlers.on_application_withdrawn,
                PromiseMissed: handlers.on_promise_missed,
            }
        ),
        topics=(ApplicationAccepted.topic,),
        due={DEADLINE: handlers.on_task_deadline},
        app=app,
        packs=packs,
    )
    app.state.bell = Bell(database, service.stopping)
    return service
