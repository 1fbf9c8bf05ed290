"""What pydantic finds wrong in a file of the policy office, in one Chinese sentence that says what to do.

The words are those of `field_errors`, save where a file is mended otherwise than a request. The text of a validator of
ours is such a sentence already.
"""

from collections.abc import Mapping

from pydantic_core import ErrorDetails

from libs.common.field_errors import WORDS, words_of

PATTERNS: Mapping[str, str] = {
    r"^[a-z][a-z0-9_]{0,63}$": "代码以小写字母开头，只用小写字母、数字和下划线，至多 64 个字符",
    r"^[a-z0-9][a-z0-9._-]{0,99}$": "编号以小写字母或数字开头，只用小写字母、数字、点、下划线和短横线，至多 100 个字符",
    r"^(person|employer)\.[a-z][a-z0-9_]{0,63}$": "名称写成 person.… 或 employer.…，点后只用小写字母、数字和下划线",
    r"^[1-9][0-9]{5}$": '应为六位数字代码，如 "410522"',
    r"^(affiliated|[1-9][0-9]{5})$": '应为 affiliated（隶属财政）或六位财政代码，如 "410500"',
    r"^[A-Z]{2}$": "应为两个大写英文字母，如 AY",
    r"^[0-9A-Za-z][0-9A-Za-z.-]{0,31}$": "版本号以字母或数字开头，只用字母、数字、点和短横线，至多 32 个字符",
}
"""The patterns of a pack in words."""

_AS_LIST = ("应为列表", "请写成 [甲, 乙]，或各项另起一行以“- ”开头。")
_AS_RECORD = ("应为一组“名称: 值”", "请检查缩进和括号。")
_WORDS: Mapping[str, tuple[str, str]] = {
    **WORDS,
    "extra_forbidden": ("此处没有这一项", "请检查名称和缩进，多余的请删去。"),
    "string_type": ("应为文本", '请填写文字，数字代码加英文双引号，如 "410500"。'),
    "int_type": ("应为整数", "请只写数字，不加引号、小数点和单位。"),
    "date_parsing": ("不是有效日期", "请写成 2021-03-23 这样，并核对当月天数。"),
    "list_type": _AS_LIST,
    "tuple_type": _AS_LIST,
    "dict_type": _AS_RECORD,
    "model_type": _AS_RECORD,
    "json_invalid": ("不是有效的 JSON", "请检查括号、引号和逗号。"),
}


def sentence(defect: ErrorDetails) -> str:
    """One thing that pydantic found wrong (an element of `.errors()`)."""
    context = defect.get("ctx", {})
    if defect["type"] == "value_error":
        return str(context["error"])
    if defect["type"] == "string_pattern_mismatch" and context["pattern"] in PATTERNS:
        return f"格式不正确，{PATTERNS[context['pattern']]}。"
    title, detail = words_of(defect, _WORDS)
    return f"{title}，{detail}"
