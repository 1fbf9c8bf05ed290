"""What pydantic found wrong in a document, in Chinese words for each field, never repeating what stood there.

A validator of ours raises `PydanticCustomError("code", "中文说明")`: its words reach the caller. The text of a plain
ValueError does not, for it may hold the value.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, get_args

from pydantic_core.core_schema import ErrorType

from libs.common.errors import ContentWrong, DomainError, FieldError, InvalidRequest
from libs.common.identity import TITLES

MAX_FIELD_ERRORS = 100  # a body of a megabyte could hold a hundred thousand
MAX_POINTER = 300

_BUILT_IN = frozenset(get_args(ErrorType))
# What pydantic's context gives as Python writes it: `'a', 'b' or 'c'`.
_LISTS = frozenset({"expected", "expected_tags", "discriminator"})
_MEMBER = re.compile(r"<\w+\.\w+: ('.*?')>")  # one of an enumeration
_PYTHON_DAY = re.compile(r"datetime\.date\((\d+), (\d+), (\d+)\)")  # and a limit that is a day
FALLBACK = ("内容不符合要求", "请对照接口文档检查此项的类型、格式和取值范围。")
# pydantic's type of error → title, what to do. `{…}` are limits from the error's context, never the input.
WORDS: Mapping[str, tuple[str, str]] = {
    "missing": ("缺少必填项", "请填写此项。"),
    "extra_forbidden": ("不认识的字段", "请删除此项，或对照接口文档检查字段名。"),
    "string_type": ("应为文本", "请填写文本。"),
    "string_too_short": ("内容过短", "至少 {min_length} 个字符。"),
    "string_too_long": ("内容过长", "至多 {max_length} 个字符。"),
    "string_pattern_mismatch": ("格式不正确", "应符合格式：{pattern}。"),
    "string_unicode": ("含有无效字符", "请使用有效的 UTF-8 文本。"),
    "int_type": ("应为整数", "请填写整数。"),
    "int_parsing": ("应为整数", "请填写整数。"),
    "int_parsing_size": ("整数过大", "请检查数值。"),
    "int_from_float": ("应为整数", "不接受小数。"),
    "float_type": ("应为数字", "请填写数字。"),
    "float_parsing": ("应为数字", "请填写数字。"),
    "finite_number": ("应为有限数值", "请填写数字。"),
    "bool_type": ("应为是或否", "请填写 true 或 false。"),
    "bool_parsing": ("应为是或否", "请填写 true 或 false。"),
    "greater_than": ("数值过小", "应大于 {gt}。"),
    "greater_than_equal": ("数值过小", "应不小于 {ge}。"),
    "less_than": ("数值过大", "应小于 {lt}。"),
    "less_than_equal": ("数值过大", "应不大于 {le}。"),
    "enum": ("取值不在范围内", "可填：{expected}。"),
    "literal_error": ("取值不在范围内", "可填：{expected}。"),
    "date_type": ("应为日期", "请按 YYYY-MM-DD 填写。"),
    "date_parsing": ("应为日期", "请按 YYYY-MM-DD 填写。"),
    "date_from_datetime_parsing": ("应为日期", "请按 YYYY-MM-DD 填写。"),
    "date_from_datetime_inexact": ("应为日期", "请按 YYYY-MM-DD 填写，不带时间。"),
    "datetime_type": ("应为时间", "请按 ISO 8601 填写，含时区，如 2026-02-13T09:00:00+08:00。"),
    "datetime_parsing": ("应为时间", "请按 ISO 8601 填写，含时区，如 2026-02-13T09:00:00+08:00。"),
    "datetime_from_date_parsing": ("应为时间", "请按 ISO 8601 填写，含时区，如 2026-02-13T09:00:00+08:00。"),
    "timezone_aware": ("时间缺少时区", "请写明时区，如 +08:00。"),
    "uuid_type": ("应为 UUID", "请填写 UUID。"),
    "uuid_parsing": ("应为 UUID", "请填写 UUID。"),
    "list_type": ("应为数组", "请填写数组。"),
    "dict_type": ("应为对象", "请填写对象。"),
    "model_type": ("应为对象", "请填写对象。"),
    "model_attributes_type": ("应为对象", "请以 JSON 对象填写。"),
    "too_short": ("条目过少", "至少 {min_length} 项。"),
    "too_long": ("条目过多", "至多 {max_length} 项。"),
    "union_tag_invalid": ("类别不在范围内", "可填：{expected_tags}。"),
    "union_tag_not_found": ("缺少类别", "请填写 {discriminator}。"),
}

# Codes of validators of ours that stand in more than one service or in none's own table.
OURS: Mapping[str, tuple[str, str]] = {
    "cursor": ("游标无效", "请使用同一列表上一次返回的 next。"),
    "day-out-of-range": ("日期超出范围", "请按说明中的起止日期填写。"),
    "flat-already-listed": ("房源已登记", "编号或坐落与在库房源或本次其他行重复。"),
    "invisible-character": ("含有不可见字符", "请删去不可见字符后重新填写。"),
    "unknown-fact": ("没有此事实", "请按 GET /intake/v1/policy 列出的事实名称填写。"),
    "unknown-fact-value": ("事实没有此取值", "请填写所列取值之一；不清楚的不填。"),
    "fact-wrong-type": ("事实的取值类型不对", "请按 GET /intake/v1/policy 列出的类型填写；不清楚的不填。"),
    "external-ref-taken": ("外部编号已用于其他申请", "该编号已对应另一份申请{existing}。"),
    "lease-days": ("租期首尾颠倒", "租期最后一日不得早于第一日。"),
    "not-chinese": ("应以中文填写", "请以中文填写，申请人将看到该内容。"),
    "number-in-words": ("含有号码", "请勿填写证件、账号、电话等号码；日期请写作 2026年2月13日。"),
    "payee-holder-differs": ("收款账户户名不是受益人", "补贴只发放到受益人本人账户，请填写本人账户。"),
    "quota-too-large": ("指标总额超过上限", "请核对金额，单位为分。"),
    "unknown-benefit": ("没有此项货币化待遇", "请填写政策中货币化待遇的代码。"),
}


def field_error(field: str, code: str, **words: object) -> FieldError:
    """A field error of ours, in the words of `OURS`; `words` fill them in."""
    title, detail = OURS[code]
    return FieldError(field, code, title, detail.format_map(words))


def refusal(defects: Sequence[Any], body: object) -> DomainError:
    """The refusal of what pydantic found wrong: of its form where any of it is, else of its content."""
    return (InvalidRequest if of_form(defects) else ContentWrong)(errors=field_errors(defects, body))


def of_form(defects: Sequence[Any]) -> bool:
    """Whether any of what pydantic found wrong is of form, which a JSON Schema can tell."""
    return any(defect["type"] in _BUILT_IN for defect in defects)


def field_errors(defects: Sequence[Any], body: object) -> list[FieldError]:
    """What pydantic found wrong (`.errors()`), field by field, at most 100; `body` is the document it looked at.

    A `loc` begins with the part of the request: body, query, path, header.
    """
    return [_translated(defect, body) for defect in defects[:MAX_FIELD_ERRORS]]


def _translated(defect: Mapping[str, Any], body: object) -> FieldError:
    kind = str(defect["type"])
    if kind not in _BUILT_IN:
        title = TITLES.get(kind) or OURS.get(kind, FALLBACK)[0]
        return FieldError(_pointer(defect, body), kind, title, str(defect["msg"]))
    return FieldError(_pointer(defect, body), kind, *words_of(defect))


def words_of(defect: Mapping[str, Any], words: Mapping[str, tuple[str, str]] = WORDS) -> tuple[str, str]:
    """What pydantic found wrong by itself, and what to do, its limits filled in."""
    title, detail = words.get(defect["type"], FALLBACK)
    context = defect.get("ctx") or {}
    limits = {name: _listed(str(value)) if name in _LISTS else _plain(value) for name, value in context.items()}
    return title, detail.format_map(limits)


def _listed(values: str) -> str:
    return "、".join(value.strip("'") for value in re.split(r", | or ", _MEMBER.sub(r"\1", values)))


def _plain(limit: object) -> object:
    day = _PYTHON_DAY.fullmatch(limit) if isinstance(limit, str) else None
    return date(*map(int, day.groups())) if day else limit


def _pointer(defect: Mapping[str, Any], body: object) -> str:
    part, *rest = defect["loc"] or ("body",)
    if part != "body":
        return "/".join(str(step) for step in (part, *rest)).lower()
    steps: list[str] = []
    here: Any = body
    for step in rest:
        if _holds(here, step):
            here = here[step]
        elif not (defect["type"] == "missing" and step == rest[-1]):
            continue  # the tag of a union, which is no place in the document
        steps.append(str(step).replace("~", "~0").replace("/", "~1"))
    return "".join(f"/{step}" for step in steps)[:MAX_POINTER]


def _holds(place: object, step: str | int) -> bool:
    if isinstance(place, list):
        return isinstance(step, int) and 0 <= step < len(place)
    return isinstance(place, Mapping) and step in place
