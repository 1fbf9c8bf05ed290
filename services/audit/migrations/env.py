from libs.common.migration import run_env
from services.audit.models import metadata

run_env(metadata)
