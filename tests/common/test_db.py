"""What leaves the database's room: nothing that a person may be known by, also when a statement fails."""

import pytest
from sqlalchemy import MetaData, text
from sqlalchemy.exc import DBAPIError

from tests.conftest import MakeDatabase


async def test_a_failed_statement_does_not_tell_its_values(make_database: MakeDatabase) -> None:
    database = await make_database(MetaData())
    with pytest.raises(DBAPIError) as failed:
        async with database.transaction() as tx:
            await tx.execute(text("SELECT 1 FROM no_such_table WHERE name = :name"), {"name": "王小明"})
    for told in (str(failed.value), repr(failed.value), repr(failed.value.orig)):
        assert "王小明" not in told
    assert "no_such_table" in str(failed.value)
