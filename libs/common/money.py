"""Money: integers of fen, exact shares of a whole, and how an amount is written for people.

No float ever stands for money. A share is a fraction written as text (`"4/10"`), so that a reader sees the
ratio of the document (4:6) and not a rounded decimal of it.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_FEN = 10**15
"""The largest amount that the system carries: ten trillion yuan, far below the limit of a BIGINT."""

Fen = Annotated[int, Field(strict=True, ge=0, le=MAX_FEN)]
"""An amount in fen, 0 to 10^15."""

_SHARE = re.compile(r"[01]|(0|[1-9][0-9]{0,5})/[1-9][0-9]{0,5}")


@lru_cache(maxsize=1024)
def parse_share(text: str) -> Fraction:
    """Read a share of a whole, as `"4/10"`, `"1"` or `"0"`: exact, between 0 and 1.

    Raises ValueError for anything else (a decimal, a sign, more than six digits a side, a value above one).
    """
    if not _SHARE.fullmatch(text):
        raise ValueError(f"“{text}”不是比例，请写成分数，如 4/10，或写 0、1。")
    share = Fraction(text)
    if share > 1:
        raise ValueError(f"比例“{text}”大于 1，请改正。")
    return share


def _checked_share(text: str) -> str:
    parse_share(text)
    return text


Share = Annotated[str, AfterValidator(_checked_share)]
"""A share kept as it is written; `parse_share` gives its exact value."""


class Amount(BaseModel):
    """An amount as the REST APIs and events carry it: `{"fen": 123, "currency": "CNY"}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fen: Fen
    currency: Literal["CNY"] = "CNY"

    def __str__(self) -> str:
        return format_yuan(self.fen)


def split(whole_fen: int, shares: Sequence[Fraction], *, remainder_to: int) -> list[int]:
    """Split `whole_fen` by exact `shares`; every part is rounded down to the fen but one.

    The part at index `remainder_to` bears what the others leave, so the parts always sum to the whole.
    Raises ValueError when the whole is negative, a share is negative, or the shares do not sum to one.
    """
    if whole_fen < 0:
        raise ValueError("a whole to be split is not negative")
    if any(share < 0 for share in shares) or sum(shares) != 1:
        raise ValueError("shares must be at least zero and sum to one")
    parts = [whole_fen * share.numerator // share.denominator for share in shares]
    parts[remainder_to] += whole_fen - sum(parts)
    return parts


def split_evenly(whole_fen: int, count: int) -> list[int]:
    """Split `whole_fen` into `count` equal parts rounded down to the fen; the last part bears the remainder.

    Raises ValueError when the whole is negative or `count` is below one.
    """
    if count < 1:
        raise ValueError("a whole is split into one part at least")
    return split(whole_fen, [Fraction(1, count)] * count, remainder_to=count - 1)


def format_yuan(fen: int) -> str:
    """Write an amount for people: 123456 fen is `1,234.56 元`."""
    yuan, rest = divmod(abs(fen), 100)
    return f"{'-' if fen < 0 else ''}{yuan:,}.{rest:02d} 元"
