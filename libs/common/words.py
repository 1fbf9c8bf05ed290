"""What people write in requests, to be read by others and kept for good: visible words, and in some no number.

Whoever reads a reason later must see what was written and nothing else, so what shows nothing is refused. What is told
in an event holds no number that a document, an account or a telephone may have.
"""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from libs.common.identity import check_digit, invisible_characters
from libs.common.wire import Sentence

# Seven digits in a row, or twelve with blanks and signs between: an amount and a date stay below both.
_NUMBER = re.compile(r"\d{7}|\d(?:[\W_]{0,3}\d){11}")
# Our own numbers name no person: of a case, a certification, an approval.
_OURS = re.compile(r"(?<![0-9A-Z])([A-Z]{2}[0-9]{16}(?:[0-9]{4})?)([0-9A-Z])(?![0-9A-Z])")


def one_line(words: str) -> str:
    """Refuse what shows nothing, line breaks too: two texts that look alike are one."""
    if invisible_characters(words):
        raise PydanticCustomError("invisible-character", "请删去不可见字符后重新填写。")
    return words


def without_numbers(words: str) -> str:
    """Refuse what has as many digits as a document, an account or a telephone, however they are written apart."""
    plain = unicodedata.normalize("NFKC", words)
    if _NUMBER.search(_OURS.sub(lambda found: "" if check_digit(found[1]) == found[2] else found[0], plain)):
        raise PydanticCustomError("number-in-words", "请勿填写证件、账号、电话等号码；日期请写作 2026年2月13日。")
    return words


ONE_LINE = AfterValidator(one_line)
WITHOUT_NUMBERS = AfterValidator(without_numbers)

Reason = Annotated[Sentence, Field(description="理由")]
"""Why somebody did something, as an officer states it."""
