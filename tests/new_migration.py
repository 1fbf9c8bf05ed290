"""Write a service's next migration from its models: `python -m tests.new_migration SERVICE "what changed"`."""

import asyncio
import sys
import tempfile
from pathlib import Path

from alembic import command

from deploy.engine import EmbeddedPostgres
from libs.common.migration import config


def main(service: str, message: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        postgres = EmbeddedPostgres(Path(folder) / "pg", stops_with_process=True)
        postgres.start()
        asyncio.run(postgres.provision([service]))
        alembic = config(service, postgres.owner_url(service))
        versions = Path(alembic.get_main_option("script_location") or "") / "versions"
        versions.mkdir(exist_ok=True)
        number = len(list(versions.glob("[0-9]*.py"))) + 1
        command.upgrade(alembic, "head")
        command.revision(alembic, message=message, autogenerate=True, rev_id=f"{number:04d}")
        postgres.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
