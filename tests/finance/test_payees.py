"""The one question that finance asks another service, held to what intake really takes and gives."""

import json
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from libs.common.auth import Verifier, development_key
from libs.common.errors import Unavailable
from libs.common.settings import Settings
from services.finance.payees import Payee, Payees
from services.intake.api.people import Question
from services.intake.resolve import Resolution, Resolved, ResolvedAccount

PERSON, OWNER = uuid4(), uuid4()


def intake(unknown: UUID, asked: list[httpx.Request]) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        refs = Question.model_validate_json(request.content).refs
        account = ResolvedAccount(holder="张三", bank="中原银行", branch_number="313496000012", account_number="6222")
        known = [
            Resolved(ref=ref, kind="person", person=OWNER)
            if ref == PERSON
            else Resolved(ref=ref, kind="payee_account", person=OWNER, payee_account=account)
            for ref in refs
            if ref != unknown
        ]
        told = Resolution(call=uuid4(), items=known, unknown=[unknown])
        return httpx.Response(200, content=told.model_dump_json())

    return httpx.MockTransport(answer)


async def test_accounts_are_asked_for_five_hundred_at_a_time_with_a_token_of_our_own(tmp_path: Path) -> None:
    settings, asked, unknown = Settings(home=tmp_path), list[httpx.Request](), uuid4()
    refs = [uuid4() for _ in range(1000)]
    found = await Payees(settings, intake(unknown, asked)).resolve([*refs, PERSON, unknown, None, refs[0]])
    assert found.accounts == {ref: Payee("6222", "张三", "313496000012", OWNER) for ref in refs}
    assert found.people == {PERSON: OWNER}
    assert [len(json.loads(request.content)["refs"]) for request in asked] == [500, 500, 2]
    development_key(settings)
    verifier = Verifier(str(settings.jwks), issuer=str(settings.issuer), audience=settings.audience)
    caller = await verifier.verify(asked[0].headers["authorization"].removeprefix("Bearer "))
    assert (caller.client, caller.role) == ("finance", "service")
    assert asked[0].url.path == "/intake/v1/people:resolve"


@pytest.mark.parametrize(
    "answer", [httpx.Response(500), httpx.Response(403), httpx.Response(200, text="{}"), httpx.Response(200, text="<")]
)
async def test_an_answer_that_is_none_is_told_as_away(tmp_path: Path, answer: httpx.Response) -> None:
    payees = Payees(Settings(home=tmp_path), httpx.MockTransport(lambda _request: answer))
    with pytest.raises(Unavailable):
        await payees.resolve([uuid4()])
