"""What the drill holds the platform to beyond its own word: answers that were given, and the bank's books."""

import asyncio

import httpx
import pytest

from deploy.sample.bank import ENCODING
from tests.faults.answers import Answers
from tests.faults.bank import Bank

DONE = httpx.Response(201, json={"id": 1})
REPEATED = httpx.Response(201, json={"id": 1}, headers={"Idempotency-Replayed": "true"})
OTHERWISE = httpx.Response(201, json={"id": 2}, headers={"Idempotency-Replayed": "true"})
REFUSED = httpx.Response(409, json={"code": "not-possible-now"})


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([DONE, REPEATED, REPEATED], []),
        ([REPEATED, DONE], []),  # two at once, the second is answered first
        ([REFUSED, DONE], []),
        ([DONE, DONE], ["/finance/v1/batches under key k-1 was done twice"]),
        ([DONE, OTHERWISE], ["/finance/v1/batches under key k-1 was answered otherwise the second time"]),
    ],
)
def test_a_command_is_done_once_and_answered_alike(answers: list[httpx.Response], said: list[str]) -> None:
    heard = Answers()
    for answer in answers:
        asked = httpx.Request("POST", "http://at/finance/v1/batches", headers={"Idempotency-Key": "k-1"})
        asyncio.run(
            heard.hear(
                httpx.Response(answer.status_code, headers=answer.headers, content=answer.content, request=asked)
            )
        )
    assert heard.violations == said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (REPEATED, []),
        (DONE, ["/finance/v1/batches under key k-1 was done twice"]),
        (OTHERWISE, ["/finance/v1/batches under key k-1 was answered otherwise the second time"]),
        (
            REFUSED,
            ['/finance/v1/batches under key k-1 was done and is refused now: {"code":"not-possible-now"}'],
        ),
    ],
)
def test_a_command_that_was_done_is_asked_again_at_the_end(answer: httpx.Response, said: list[str]) -> None:
    heard, answers = Answers(), [DONE, answer]

    async def asked_twice() -> list[str]:
        transport = httpx.MockTransport(lambda _: answers.pop(0))
        async with httpx.AsyncClient(transport=transport, event_hooks={"response": [heard.hear]}) as http:
            await http.post("http://at/finance/v1/batches", headers={"Idempotency-Key": "k-1"}, json={})
            return await heard.again(http)

    assert [*asyncio.run(asked_twice()), *heard.violations] == said


def test_a_batch_that_comes_again_is_paid_once_and_must_be_the_same() -> None:
    bank = Bank()
    for fen in (100, 100, 101):
        bank.give(_batch(fen))
    assert (bank.received, bank.sums) == ({"r-1": 1}, {"r-1": 100})
    assert bank.violations == ["batch b-1 came to the bank again with other contents"]


def _batch(fen: int) -> bytes:
    rows = [
        f"H|HQPAY1|b-1|410505|20261130|1|{fen}",
        f"D|r-1|name|bank|account|{fen}|purpose",
        f"T|1|{fen}",
    ]
    return "".join(f"{row}\n" for row in rows).encode(ENCODING)
