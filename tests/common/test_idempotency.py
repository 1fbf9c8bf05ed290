"""One command, one effect: on a real PostgreSQL, with duplicates at the same moment."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from pydantic import BaseModel
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from libs.common.auth import Principal
from libs.common.db import Database
from libs.common.errors import IdempotencyKeyReused, NotFound
from libs.common.idempotency import (
    Reply,
    claim,
    idempotency_table,
    known_keys,
    once,
    record,
    release,
    request_hash,
    valid_key,
)

PORTAL = Principal("portal", "portal", "portal", frozenset())
OTHER = Principal("other", "other", "portal", frozenset())
MakeDatabase = Callable[[MetaData], Awaitable[Database]]


class Filed(BaseModel):
    name: str
    fen: int


@pytest.fixture
async def database(make_database: MakeDatabase) -> Database:
    metadata = MetaData()
    idempotency_table(metadata)
    return await make_database(metadata)


class Effects:
    """Counts how often the command did its work."""

    def __init__(self) -> None:
        self.done = 0

    async def __call__(self) -> Reply:
        self.done += 1
        return Reply(201, {"number": self.done, "名": "张三", "a": None}, {"Location": f"/x/{self.done}"})


async def file(
    database: Database,
    effects: Callable[[], Awaitable[Reply]],
    *,
    key: str = "k-1",
    body: bytes | BaseModel = b"{}",
    caller: Principal = PORTAL,
    operation: str = "file",
    target: str = "",
) -> Response:
    async with database.transaction() as tx:
        return await once(tx, caller=caller, operation=operation, key=key, body=body, do=effects, target=target)


async def test_a_repeated_command_gets_the_stored_answer_byte_by_byte(database: Database) -> None:
    effects = Effects()
    first, second = await file(database, effects), await file(database, effects)
    assert effects.done == 1
    assert (first.status_code, first.body) == (second.status_code, second.body)
    assert first.headers["location"] == second.headers["location"] == "/x/1"
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"


async def test_the_same_key_with_another_body_or_record_is_refused(database: Database) -> None:
    effects = Effects()
    await file(database, effects, body=Filed(name="张三", fen=1))
    await file(database, effects, body=Filed(name="张三", fen=1))
    with pytest.raises(IdempotencyKeyReused):
        await file(database, effects, body=Filed(name="张三", fen=2))
    with pytest.raises(IdempotencyKeyReused):
        await file(database, effects, body=Filed(name="张三", fen=1), target="another")
    assert effects.done == 1


async def test_keys_are_each_clients_and_each_operations_own(database: Database) -> None:
    effects = Effects()
    await file(database, effects)
    await file(database, effects, caller=OTHER)
    await file(database, effects, operation="withdraw")
    assert effects.done == 3


async def test_duplicates_at_the_same_moment_do_the_work_once(database: Database) -> None:
    effects = Effects()

    async def slowly() -> Reply:
        await asyncio.sleep(0.1)
        return await effects()

    answers = await asyncio.gather(*(file(database, slowly) for _ in range(4)))
    assert effects.done == 1
    assert len({bytes(answer.body) for answer in answers}) == 1
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 3


async def test_a_refusal_is_not_stored_and_the_one_who_waited_does_the_work(database: Database) -> None:
    effects, began, may_end = Effects(), asyncio.Event(), asyncio.Event()

    async def refusing() -> Reply:
        began.set()
        await may_end.wait()
        raise NotFound

    refused = asyncio.create_task(file(database, refusing))
    await began.wait()
    done = asyncio.create_task(file(database, effects))
    await asyncio.sleep(0.05)
    assert effects.done == 0
    may_end.set()
    with pytest.raises(NotFound):
        await refused
    assert (await done).status_code == 201
    assert effects.done == 1


async def test_a_model_and_an_empty_answer_are_stored_as_they_were_given(database: Database) -> None:
    async def model() -> Reply:
        return Reply(200, Filed(name="㐂·Ω", fen=10**15))

    async def nothing() -> Reply:
        return Reply(202)

    for key, do in (("m", model), ("n", nothing)):
        first, second = await file(database, do, key=key), await file(database, do, key=key)
        assert first.body == second.body
    assert json.loads(bytes((await file(database, model, key="m")).body)) == {"name": "㐂·Ω", "fen": 10**15}


async def line(tx: AsyncConnection, keys: dict[str, bytes]) -> set[str]:
    new = await claim(tx, "portal", "batch", keys)
    good = {key for key in new if "bad" not in key}
    await record(tx, "portal", "batch", {key: Reply(201, {"key": key}) for key in good})
    await release(tx, "portal", "batch", new - good)
    return good


async def test_lines_of_a_bulk_file_are_claimed_together_and_a_refused_one_may_come_again(database: Database) -> None:
    keys = {key: request_hash(key.encode()) for key in ("a", "b", "bad", "c")}
    async with database.transaction() as tx:
        assert await line(tx, keys) == {"a", "b", "c"}
    async with database.transaction() as tx:
        known = await known_keys(tx, "portal", "batch", keys)
        assert set(known) == {"a", "b", "c"}
        assert known["a"].request_hash == keys["a"]
        assert known["a"].reply.text() == '{"key":"a"}'
        assert await claim(tx, "portal", "batch", keys) == {"bad"}
        await release(tx, "portal", "batch", ["a", "bad"])
    async with database.transaction() as tx:
        assert set(await known_keys(tx, "portal", "batch", keys)) == {"a", "b", "c"}


async def test_bulk_files_that_share_keys_in_another_order_do_not_deadlock(database: Database) -> None:
    keys = [f"k{n:04}" for n in range(500)]

    async def claimed(order: list[str]) -> int:
        async with database.transaction() as tx:
            new = await claim(tx, "portal", "batch", dict.fromkeys(order, b"x"))
            await record(tx, "portal", "batch", {key: Reply(201) for key in new})
            return len(new)

    assert sorted(await asyncio.gather(*(claimed(keys[::step]) for step in (1, -1, 1, -1)))) == [0, 0, 0, 500]


async def test_no_key_is_left_without_an_answer(database: Database) -> None:
    await file(database, Effects())
    async with database.transaction() as tx:
        assert (await tx.execute(text("SELECT count(*) FROM idempotency WHERE status IS NULL"))).scalar() == 0


@pytest.mark.parametrize(("key", "good"), [("a", True), ("~!" * 100, True), ("", False), ("a\n", False), ("é", False)])
def test_a_key_is_visible_ascii(key: str, *, good: bool) -> None:
    assert valid_key(key) is good
