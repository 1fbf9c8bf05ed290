"""A wrong file of the policy office is told in its own words: no type of error and no pattern is left to pydantic's."""

from collections.abc import Iterator

import pytest

from libs.common.policy import Pack, PackRefused
from libs.common.policy.defects import PATTERNS
from libs.common.policy.model import Contents
from tests.common.packs import edited

LIGHTS = "  - id: lights\n    yellow_working_days_left: 1\n"


def patterns_in(schema: object) -> Iterator[str]:
    """Every pattern of a JSON Schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        for part in schema.values():
            yield from patterns_in(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from patterns_in(part)


def test_every_pattern_of_a_pack_has_words_and_no_other_has() -> None:
    assert set(patterns_in(Contents.model_json_schema())) == set(PATTERNS)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            (LIGHTS, LIGHTS.replace(" 1", "")),
            "yellow_working_days_left：应为整数，请只写数字，不加引号、小数点和单位。",
        ),
        ((LIGHTS, LIGHTS.replace(" 1", " -1")), "yellow_working_days_left：数值过小，应不小于 0。"),
        ((LIGHTS, LIGHTS.replace(" 1", " 1001")), "yellow_working_days_left：数值过大，应不大于 1000。"),
        ((LIGHTS, LIGHTS.replace("lights", "Lights")), "lights[1].id：格式不正确，编号以小写字母或数字开头"),
        (('share: "1"}]', "share: 1}]"), "share：应为文本，请填写文字，数字代码加英文双引号"),
        (("required: false", "required: no"), "public_notices[1].required：应为是或否，请填写 true 或 false。"),
        ((LIGHTS, LIGHTS + "    valid_to: 3\n"), "lights[1].valid_to：应为日期，请按 YYYY-MM-DD 填写。"),
        ((f"lights:\n{LIGHTS}", f"lights:\n  - none\n{LIGHTS}"), "lights[1]：应为一组“名称: 值”"),
        (("treasury_kinds: [city_level, district, county, zone]", "treasury_kinds: county"), "应为列表"),
        (("    kind: amendment\n", "    kind: amended\n"), "kind：取值不在范围内，可填：base、amendment、"),
        (("items: [talent_certification, flexible_certification]", "items: []"), "items：条目过少，至少 1 项。"),
    ],
)
def test_what_pydantic_finds_wrong_is_told_in_chinese_with_what_to_do(change: tuple[str, str], told: str) -> None:
    with pytest.raises(PackRefused) as refused:
        Pack.parse(edited(change).encode())
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: b: c", "第 1 行：此处不应有冒号"),
        ("a: 1\nb: @x", "第 2 行：值不能以这个字符开头"),
        ("a: 1\nb\n", "此处或上一行缺少英文冒号"),
        ("a: 1\n- b", "第 2 行：此处的层次不对"),
        ("- a\nb: 1", "第 2 行：此处应是列表的下一项"),
        ("a: [1\nb: 2", "第 2 行：方括号内没有写完"),
        ("a: {x: 1\nb: 2", "第 2 行：花括号内没有写完"),
        ("a: 'x", "第 1 行：引号不成对"),
        ("a: 1\nb: {x: y", "第 2 行：花括号内没有写完"),
        ("a: 1\nb: \a", "第 2 行：含有看不见的控制字符"),
        ("a: |x\n b", "第 1 行：不是有效的 YAML（did not find expected comment or line break），请改正。"),
    ],
)
def test_what_is_no_yaml_is_told_in_chinese_with_its_line(text: str, told: str) -> None:
    with pytest.raises(PackRefused) as refused:
        Pack.parse(text.encode())
    assert told in str(refused.value)
