"""Alembic's entry to the schema of workflow."""

from libs.common.migration import run_env
from services.workflow.models import metadata

run_env(metadata)
