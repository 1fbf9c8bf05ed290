"""What the routes share: packs, and words in requests."""

import re
from typing import Annotated

from fastapi import Depends, Request
from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from libs.common.packs import Packs
from libs.common.words import WITHOUT_NUMBERS, Reason

_HAN = re.compile("[\u4e00-\u9fff]")


async def packs_of(request: Request) -> Packs:
    """The packs that the service holds."""
    packs: Packs = request.app.state.service.packs
    return packs


PacksHeld = Annotated[Packs, Depends(packs_of)]


def _in_chinese(words: str) -> str:
    if not _HAN.search(words):
        raise PydanticCustomError("not-chinese", "请以中文填写，申请人将看到该内容。")
    return words


ReasonTold = Annotated[
    Reason, AfterValidator(_in_chinese), WITHOUT_NUMBERS, Field(description="原因（中文），不得含号码")
]
"""Applicants read it, and the event of a refusal tells it."""
CodeText = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
