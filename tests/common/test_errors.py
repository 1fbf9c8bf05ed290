"""Refusals: one class a code, a body of RFC 9457, words in Chinese that say what to do."""

import re

import pytest

from libs.common.errors import (
    DomainError,
    FieldError,
    Forbidden,
    InvalidRequest,
    NotFound,
    Problem,
    TooManyRequests,
    Unauthenticated,
    registry,
)

CHINESE = re.compile(r"[一-鿿]")


@pytest.mark.parametrize("kind", registry().values(), ids=lambda kind: str(kind.code))
def test_every_refusal_has_an_error_status_and_chinese_words(kind: type[DomainError]) -> None:
    assert 400 <= kind.status < 600
    assert CHINESE.search(kind.title)
    assert CHINESE.search(kind.detail or kind.title)
    assert kind.__doc__
    assert kind.semantic is False or kind.status == 422


def test_a_problem_names_its_kind_its_reason_and_each_field() -> None:
    field = FieldError("/items/0/amount", "missing", "缺少必填项", "请填写此项。")
    body = InvalidRequest(errors=[field]).problem("urn:huanquan:trace:1")
    assert Problem.model_validate(body).errors[0].field == "/items/0/amount"
    assert body["type"] == "/errors#invalid-request"
    assert (body["status"], body["instance"]) == (422, "urn:huanquan:trace:1")


def test_the_detail_is_filled_from_named_fields() -> None:
    assert "finance:pay" in Forbidden(scope="finance:pay").message
    assert Forbidden(scope="finance:pay").headers["WWW-Authenticate"].startswith("Bearer ")
    assert TooManyRequests(seconds=3).headers == {"Retry-After": "3"}


def test_a_missing_or_a_foreign_field_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError):
        NotFound(application="x")
    with pytest.raises(TypeError):
        DomainError.__init__(NotFound.__new__(NotFound), name="张三")


def test_two_refusals_never_share_a_code() -> None:
    with pytest.raises(TypeError, match="share the code"):

        class Other(DomainError):
            status, code, title = 404, "not-found", "另一个"


def test_a_refusal_without_a_title_or_with_a_sloppy_code_is_not_accepted() -> None:
    with pytest.raises(TypeError, match="title"):

        class Untitled(DomainError):
            status, code = 409, "untitled"

    with pytest.raises(TypeError, match="no code"):

        class Sloppy(DomainError):
            status, code, title = 409, "Flat_Held", "房源已锁定"


def test_the_challenge_says_whether_a_token_was_presented() -> None:
    assert Unauthenticated().headers["WWW-Authenticate"] == "Bearer"
    assert 'error="invalid_token"' in Unauthenticated(presented=True).headers["WWW-Authenticate"]
