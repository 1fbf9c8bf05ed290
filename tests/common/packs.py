"""The Anyang pack for tests, and packs made from it by changing its text."""

from functools import cache
from pathlib import Path

from libs.common.packs import store
from libs.common.policy import Pack, load_pack
from libs.common.service import Service

ANYANG = Path(__file__).parents[2] / "deploy" / "policies" / "anyang" / "2021-4.4.yaml"


@cache
def anyang() -> Pack:
    return load_pack(ANYANG)


def anyang_text() -> str:
    return ANYANG.read_text(encoding="utf-8")


def edited(*changes: tuple[str, str]) -> str:
    """The pack's text with each first text replaced by the second, which must stand there exactly once."""
    text = anyang_text()
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the pack"
        text = text.replace(old, new)
    return text


def a_pack(*changes: tuple[str, str]) -> Pack:
    return Pack.parse(edited(*changes).encode())


async def publish(service: Service, pack: Pack) -> Pack:
    """Have a service know a pack, as `policy publish` does."""
    async with service.database.transaction() as tx:
        await store(tx, pack)
    await service.packs.refresh()
    return pack


def one_of(*benefits: str, rule: str = "one-of-two") -> tuple[str, str]:
    """The change by which of some benefits one may be had."""
    section = f"""at_most_one:
  - id: {rule}
    title: 同类待遇择一享受
    benefits: [{", ".join(benefits)}]
    document: anyang-2021-4
    article: 第四条
    valid_from: 2021-03-23
    version_by: accepted_on

"""
    return "exclusions:\n", f"{section}exclusions:\n"


def green(*items: str, categories: str, limit: int | None, since: str = "2021-03-23") -> tuple[str, str]:
    """The change by which items of talent of more categories go through the green channel."""
    rule = f"""  - id: green.more
    categories: [{categories}]
    items: [{", ".join(items)}]
    document: anyang-2021-4
    article: 第六条
    valid_from: {since}
    version_by: accepted_on
"""
    limited = f"    limit_working_days: {limit}\n" if limit else ""
    return "green_channels:\n", f"green_channels:\n{rule}{limited}"


def reviewed(*benefits: str) -> tuple[str, str]:
    """The change by which later instalments of benefits wait for a review of two facts."""
    rules = f"""  - id: still.insured
    code: still_insured
    title: 仍在我市参保
    instalments: [{", ".join(benefits)}]
    when: person.insured_here
    passed: 在我市参保
    failed: 参保已中断，本期缓发
    undetermined: 参保情况尚不清楚，请人社部门核实
    document: anyang-2021-4
    article: 第四条
    valid_from: 2021-03-23
    version_by: accepted_on
  - id: still.in-good-standing
    code: still_in_good_standing
    title: 用人单位经营仍良好
    instalments: [{", ".join(benefits)}]
    when: employer.good_standing
    passed: 用人单位经营良好
    failed: 用人单位经营异常，本期缓发
    undetermined: 用人单位经营状况尚不清楚
    document: anyang-2021-4
    article: 第四条
    valid_from: 2021-03-23
    version_by: accepted_on
"""
    return "\nconditions:\n", f"\nconditions:\n{rules}"
