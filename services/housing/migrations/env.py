from libs.common.migration import run_env
from services.housing.models import metadata

run_env(metadata)
