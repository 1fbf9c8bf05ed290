"""The REST API of workflow, by noun."""

from services.workflow.api.cases import router as cases
from services.workflow.api.decisions import router as decisions
from services.workflow.api.notices import router as notices
from services.workflow.api.tasks import router as tasks

routers = (tasks, decisions, notices, cases)
