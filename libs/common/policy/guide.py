"""The service standard (服务规范, 第三条) and the guide of each item (办事指南), out of the pack and nothing else.

What a pack does not hold stands in no guide; what rests on an assumption says so. Rendered by `deploy/policy_guide.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from libs.common.money import format_yuan
from libs.common.policy.coverage import categories_of
from libs.common.policy.green_channel import promised_working_days
from libs.common.policy.instalments import review_conditions
from libs.common.policy.model import (
    Anchor,
    AtMostOne,
    BenefitAmount,
    BenefitForm,
    CertificationTerm,
    Cited,
    ClaimSubject,
    CorrectionTerms,
    Exclusion,
    GreenChannel,
    InstalmentPlan,
    Item,
    ItemKind,
    PayoutTerms,
    PublicNotice,
    TaskLevel,
)
from libs.common.policy.pack import Pack
from libs.common.policy.wording import TITLES, keeper_of, shortened_to, title_in, titled

ASSUMED = "（文件未写明，为假定）"

Table = tuple[tuple[str, ...], ...]
"""Rows of cells; the first row is the head."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A part of a guide: its name, what it says, line by line, and a table where there is one."""

    name: str
    lines: tuple[str, ...] = ()
    table: Table = ()


@dataclass(frozen=True, slots=True)
class ItemGuide:
    """The guide of one item."""

    code: str
    title: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Guide:
    """The service standard of a day, with the guides of all its items."""

    title: str
    policy: str
    on: date
    standard: tuple[Entry, ...]
    items: tuple[ItemGuide, ...]


def guide(pack: Pack, on: date) -> Guide:
    """What the pack says of every item in force on a day. Raises NoRuleInForce before the pack's first day."""
    items = [item for item in pack.items if item.covers(on)]
    guides = tuple(ItemGuide(it.code, it.title, tuple(_entries(pack, it, on))) for it in items)
    return Guide(f"{pack.title}：服务规范和办事指南", str(pack.identity), on, tuple(_standard(pack, items, on)), guides)


# -- the standard


def _standard(pack: Pack, items: list[Item], on: date) -> Iterator[Entry]:
    numbers = (f"{document.number} {document.title}（{document.issued_by}）" for document in pack.documents)
    yield Entry("依据文件", tuple(numbers))
    head = ("事项", "类型", "材料", "办理部门", "承诺时限", "法定时限", "到现场")
    yield Entry("服务项目", table=(head, *(_overview(pack, item) for item in items)))
    terms = pack.rule(CorrectionTerms, on=on)
    tell, correct = terms.tell_defects_within_working_days, terms.correct_within_working_days
    yield Entry(
        "受理",
        (
            "网上申请和窗口申请同等办理；材料齐全的当场受理。",
            f"材料不全的，{tell} 个工作日内一次性告知全部缺项，逾期未告知即为受理。{_assumed(terms)}",
            f"申请人自告知之日起 {correct} 个工作日内补正。{_assumed(terms)}",
            "办理时限自受理次日起按工作日计算，末日以当日二十四时为止；专家评审、公示等时间不计入。",
        ),
    )
    payout = pack.rule(PayoutTerms, on=on)
    within = payout.due_within_working_days
    yield Entry("兑现", (f"财政承担部分自认定次日起 {within} 个工作日内到达受益人账户。{_assumed(payout)}",))
    served = ((each.title, "、".join(titled(pack, code) for code in each.treasuries)) for each in pack.platforms)
    yield Entry(
        "受理平台",
        ("按用人单位的财政等隶属关系向所属平台申请；报错平台的，直接转办。",),
        (("平台", "受理范围"), *served),
    )
    yield from _directories(pack, on)
    yield from _green_channels(pack, items, on)


def _directories(pack: Pack, on: date) -> Iterator[Entry]:
    """The directories of employers, each with its keeper."""
    kept = [
        (rule.title, keeper_of(pack, rule), f"{pack.citation(rule)}{_assumed(rule)}")
        for rule in pack.directories
        if rule.covers(on)
    ]
    if kept:
        told = "用人单位是否列入目录，由平台按受理之日的目录查明，申请人不必说明或者证明。"
        yield Entry("企业目录", (told,), (("目录", "登记部门", "依据"), *kept))


def _green_channels(pack: Pack, items: list[Item], on: date) -> Iterator[Entry]:
    """Who has which items worked through the green channel, and how fast."""
    kept = [
        (
            "、".join(item.title for item in items if item.code in rule.items),
            _categories(pack, rule),
            shortened_to(rule),
            f"{pack.citation(rule)}{_assumed(rule)}",
        )
        for rule in pack.green_channels
        if rule.covers(on)
    ]
    if kept:
        told = (
            "下列人才申请下列事项，各部门优先办理；时限有缩短的，按较短的一个计算。",
            "人才类别以同一申请中申报的为准；凭已有认定编号申请的，以该认定为准。不须另行申请。",
        )
        yield Entry("绿色通道", told, (("事项", "人才类别", "各部门时限", "依据"), *kept))


def _categories(pack: Pack, rule: GreenChannel) -> str:
    return "、".join(title_in(pack.categories, code) for code in rule.categories)


def _overview(pack: Pack, item: Item) -> tuple[str, ...]:
    departments = dict.fromkeys(title_in(pack.departments, task.department) for stage in item.stages for task in stage)
    told = item.title, TITLES[item.kind], f"{len(item.materials)} 份", "、".join(departments) or "无"
    return *told, _promised(item), _statutory(item), f"{item.visits} 次"


def _promised(item: Item) -> str:
    return f"{item.promised_working_days} 个工作日" if item.stages else "即时"


def _statutory(item: Item) -> str:
    return f"{item.statutory_working_days} 个工作日" if item.statutory_working_days else "无规定"


# -- an item


def _entries(pack: Pack, item: Item, on: date) -> Iterator[Entry]:
    yield Entry("类型", (TITLES[item.kind],))
    yield Entry("依据", (f"{pack.citation(item)}{_assumed(item)}",))
    yield from _who(pack, item, on)
    yield from _what(pack, item, on)
    materials = tuple(f"{n}. {material.title}" for n, material in enumerate(item.materials, 1))
    yield Entry("申请材料", materials or ("无",))
    if item.materials:
        yield Entry("材料说明", ("电子证照与纸质材料同等有效；可在约定日期前补交的，可先作承诺（容缺受理）。",))
    yield _flow(pack, item)
    notice = pack.find_rule(PublicNotice, item.code, on=on)
    if notice is not None:
        kind = "须" if notice.required else "可以"
        told = f"认定前{kind}公示 {notice.working_days} 个工作日，不计入办理时限；期内可提出异议，核查后再作决定。"
        yield Entry("公示", (f"{told}{_assumed(notice)}",))
    yield Entry("办理时限", (f"承诺时限：{_promised(item)}。", f"法定时限：{_statutory(item)}。"))
    yield from _sooner(pack, item, on)
    yield Entry("到办事现场次数", (f"{item.visits} 次。",))
    yield Entry("办理结果", (f"{item.result}，由受理平台集中反馈。",))
    yield Entry("救济途径", (f"{item.remedy}。",))


def _sooner(pack: Pack, item: Item, on: date) -> Iterator[Entry]:
    """For whom the item goes through the green channel, and how long it then takes at most."""
    told = tuple(
        f"{_categories(pack, rule)}：优先办理，全程至多 {promised_working_days(item, rule)} 个工作日。{_assumed(rule)}"
        for rule in pack.green_channels
        if item.code in rule.items and rule.covers(on)
    )
    if told:
        yield Entry("绿色通道", told)


def _who(pack: Pack, item: Item, on: date) -> Iterator[Entry]:
    """Whom the item is for: the categories, and what each of them asks."""
    if item.kind is ItemKind.CERTIFICATION:
        head = ("人才类别", "覆盖范围", "条件")
        rows = []
        for category in categories_of(pack, item=item.code, on=on):
            asks = [
                f"{rule.title}{_assumed(rule)}"
                for rule in pack.conditions
                if rule.covers(on) and (category.coverage in rule.coverages or category.code in rule.categories)
            ]
            rows.append((category.title, title_in(pack.coverages, category.coverage), "；".join(asks) or "无"))
        yield Entry("对象和条件", table=(head, *rows))
        months = pack.rule(CertificationTerm, on=on)
        yield Entry("有效期", (f"{months.validity_months} 个月。{_assumed(months)}",))
    of_item = [rule for rule in pack.conditions if item.code in rule.items and rule.covers(on)]
    if of_item:
        yield Entry("另须符合", tuple(f"{rule.title}{_assumed(rule)}" for rule in of_item))


def _what(pack: Pack, item: Item, on: date) -> Iterator[Entry]:
    """What a benefit gives, to whom and when."""
    if item.kind is not ItemKind.BENEFIT:
        return
    benefit = pack.benefit(item.code, on)
    once = f"已取得人才认定的，{_ONCE[benefit.claim_subject]}。{_assumed(benefit)}"
    yield Entry("申领", (once, *_or_another(pack, item, on)))
    excluded = [rule for rule in pack.exclusions if item.code in rule.benefits and rule.covers(on)]
    if excluded:
        yield Entry(
            "不享受的人员", tuple(f"{title_in(pack.coverages, rule.coverage)}{_assumed(rule)}" for rule in excluded)
        )
    if benefit.form is BenefitForm.MONEY:
        head = ("人才类别", "标准（含用人单位承担部分）")
        yield Entry("标准", table=(head, *_amounts(pack, item, on)))
        plan = pack.rule(InstalmentPlan, item.code, on=on)
        yield Entry("发放", (f"{_instalments(plan)}{_assumed(plan)}",))
        yield from _reviews(pack, item, on)


def _reviews(pack: Pack, item: Item, on: date) -> Iterator[Entry]:
    """What must still hold before each later instalment."""
    if rules := review_conditions(pack, benefit=item.code, on=on):
        told = "自第 2 期起，每期发放前复核以下各项，符合的按期发放；暂不符合的缓发，以后复核符合的随即补发。"
        yield Entry("发放前复核", (told, *(f"{rule.title}{_assumed(rule)}" for rule in rules)))


_ONCE = {
    ClaimSubject.PERSON: "每人申领一份",
    ClaimSubject.HOUSEHOLD: "每户申领一份，夫妻双方不能各领一份",
    ClaimSubject.PROPERTY: "每套房产申领一份",
}


def _or_another(pack: Pack, item: Item, on: date) -> Iterator[str]:
    """What cannot be had beside a benefit."""
    rule = pack.find_rule(AtMostOne, item.code, on=on)
    if rule is not None:
        others = "、".join(f"“{title_in(pack.benefits, code)}”" for code in rule.benefits if code != item.code)
        yield f"与{others}只能享受其一（{pack.citation(rule)}）。{_assumed(rule)}"


def _amounts(pack: Pack, item: Item, on: date) -> Iterator[tuple[str, ...]]:
    for category in pack.categories:
        amount = pack.find_rule(BenefitAmount, item.code, category.code, on=on) if category.covers(on) else None
        if amount is not None:
            yield category.title, f"{format_yuan(amount.fen)}{_assumed(amount)}"
        elif category.covers(on) and pack.find_rule(Exclusion, category.coverage, item.code, on=on) is None:
            yield category.title, "没有标准"


def _instalments(plan: InstalmentPlan) -> str:
    if plan.count == 1:
        return "一次发放。"
    since = {Anchor.DECIDED_ON: "认定之日", Anchor.FIRST_DUE_ON: "首期应付日"}[plan.anchor]
    return f"分 {plan.count} 期等额发放，自{since}起每 {plan.months_between} 个月一期，逢非工作日{TITLES[plan.roll]}。"


def _flow(pack: Pack, item: Item) -> Entry:
    rows = [
        (
            f"第 {n} 步",
            f"{'市' if task.level is TaskLevel.CITY else ''}{title_in(pack.departments, task.department)}",
            task.title,
            f"{task.limit_working_days} 个工作日",
        )
        for n, stage in enumerate(item.stages, 1)
        for task in stage
    ]
    total = f"同一步的各部门同时办理；全程至多 {item.promised_working_days} 个工作日。"
    return (
        Entry("办理流程", (total,), (("步骤", "部门", "内容", "时限"), *rows))
        if rows
        else Entry("办理流程", ("无须部门办理。",))
    )


def _assumed(rule: Cited) -> str:
    return ASSUMED if rule.assumption else ""
