"""Homes that are older than a migration keep what they hold."""

import asyncio
import uuid

from alembic import command

from libs.common.db import connect
from libs.common.migration import config
from tests.conftest import Postgres, create_database

_BEFORE = """
    INSERT INTO person (ref, sealed) VALUES ('00000000-0000-0000-0000-000000000001', '');
    INSERT INTO person_document (person, type, number_index, sealed)
    SELECT '00000000-0000-0000-0000-000000000001', type, type::bytea, ''
      FROM unnest(ARRAY['hm_travel_permit', 'passport', 'resident_identity_card']) AS r (type);
"""


def test_of_an_older_record_the_first_document_and_the_cards_identify(postgres: Postgres) -> None:
    name = f"m_{uuid.uuid4().hex}"
    asyncio.run(create_database(postgres, name, "intake"))
    url = postgres.url(name, "intake_owner")

    async def ask(query: str) -> list[tuple[str, bool]]:
        connection = await connect(url)
        rows = await connection.fetch(query) if query.startswith("SELECT") else await connection.execute(query)
        await connection.close()
        return [tuple(row) for row in rows] if query.startswith("SELECT") else []

    command.upgrade(config("intake", url), "0003")
    asyncio.run(ask(_BEFORE))
    command.upgrade(config("intake", url), "0004")
    found = asyncio.run(ask("SELECT type, claimed FROM person_document ORDER BY id"))
    assert found == [("hm_travel_permit", False), ("passport", True), ("resident_identity_card", False)]
    command.downgrade(config("intake", url), "0003")
