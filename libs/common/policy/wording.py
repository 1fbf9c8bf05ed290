"""A rule in the words of a policy office: what kind of rule it is, what it is about, what it says, and whom a change
of it helps or costs. One entry for each kind of rule; `policy diff` reads them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from libs.common.money import format_yuan, parse_share
from libs.common.policy.conditions import in_words
from libs.common.policy.model import (
    AFFILIATED,
    AffiliationOrder,
    Anchor,
    AtMostOne,
    Benefit,
    BenefitAmount,
    BenefitForm,
    CashAdvance,
    Category,
    CertificationTerm,
    Changed,
    Cited,
    ClaimSubject,
    CodedRule,
    Condition,
    CorrectionTerms,
    Coverage,
    Department,
    Directory,
    EmployerShareRule,
    Exclusion,
    FlatKind,
    GreenChannel,
    InstalmentPlan,
    Item,
    ItemKind,
    Lights,
    ManualDecisionRule,
    OrderTerms,
    PackTreasury,
    PayoutTerms,
    Platform,
    PublicNotice,
    Roll,
    RouteKind,
    Rule,
    SettlementRoute,
    SharingPlan,
    Subject,
    Task,
    TaskLevel,
)
from libs.common.policy.pack import Pack
from libs.common.treasuries import AffiliationKind, EmployerKind, TreasuryKind

TITLES: Mapping[str, str] = {
    TreasuryKind.CITY_LEVEL: "市直单位",
    TreasuryKind.DISTRICT: "区",
    TreasuryKind.COUNTY: "县（市）",
    TreasuryKind.ZONE: "功能区",
    TreasuryKind.PROVINCE: "省",
    AffiliationKind.FISCAL: "财政隶属",
    AffiliationKind.ADMINISTRATIVE: "行政隶属",
    AffiliationKind.TAX: "税务登记",
    AffiliationKind.REGISTRATION: "注册登记",
    EmployerKind.ENTERPRISE: "企业",
    EmployerKind.INSTITUTION: "事业单位",
    EmployerKind.GOVERNMENT: "机关",
    EmployerKind.SOCIAL_ORGANISATION: "社会组织",
    EmployerKind.OWN_STARTUP: "自主创业",
    EmployerKind.CENTRAL_OR_PROVINCIAL: "中央、省驻市单位",
    ItemKind.CERTIFICATION: "认定",
    ItemKind.BENEFIT: "兑现",
    ItemKind.SERVICE: "服务事项",
    ItemKind.CHANGE: "变更",
    BenefitForm.MONEY: "资金",
    BenefitForm.IN_KIND: "实物或服务",
    FlatKind.TRANSITIONAL: "人才周转房",
    FlatKind.APARTMENT: "人才公寓",
    ClaimSubject.PERSON: "个人",
    ClaimSubject.HOUSEHOLD: "家庭",
    ClaimSubject.PROPERTY: "房产",
    Anchor.DECIDED_ON: "认定之日",
    Anchor.FIRST_DUE_ON: "首期应付日",
    Roll.NEXT: "顺延至下一工作日",
    Roll.PREVIOUS: "提前至上一工作日",
    RouteKind.DIRECT: "市与县（区）直接结算",
    RouteKind.VIA_PROVINCE: "经省结算",
    TaskLevel.AFFILIATED: "隶属一级",
    TaskLevel.CITY: "市级",
    Changed.PAYEE_ACCOUNT: "收款账户",
    AFFILIATED: "隶属财政",
}
"""The Chinese of what the model names by codes of its own."""


class Effect(NamedTuple):
    """Whom a change helps and whom it costs."""

    gains: tuple[str, ...] = ()
    loses: tuple[str, ...] = ()


Facets = Mapping[str, str]
"""What a rule says, each part under its Chinese name, in the order in which people read it."""


EffectOf = Callable[[Pack, Any, Any], Effect]
"""The effect of a change from one rule to another; None stands for a rule that is not there."""


@dataclass(frozen=True)
class Wording:
    """How rules of one kind are told."""

    title: str
    facets: Callable[[Pack, Any], Facets]
    effect: EffectOf = lambda *_: Effect()


def about(pack: Pack, subject: Subject) -> str:
    """A subject in words: the titles of its codes in this pack."""
    return "、".join(titled(pack, code) for code in subject if code not in _OF_A_PLATFORM)


def titled(pack: Pack, code: str) -> str:
    """The title of a code of this pack; the code where the pack does not hold it."""
    return TITLES.get(code) or _titles(pack).get(code, code)


def title_in(records: Iterable[Department | CodedRule], code: str) -> str:
    """The title of a code among records of one sort: where another sort may have the same code (the department `tax`,
    the coverage and the category `flexible`), `titled` would mix them up."""
    return next(record.title for record in records if record.code == code)


def keeper_of(pack: Pack, directory: Directory) -> str:
    """Who enters and strikes employers: a department of the city level."""
    return f"市{title_in(pack.departments, directory.keeper)}"


def shortened_to(rule: GreenChannel) -> str:
    """What the green channel makes of the limit of each department."""
    return f"至多 {_days(rule.limit_working_days)}" if rule.limit_working_days else "不另缩短"


def source_of(pack: Pack, rule: Cited) -> Facets:
    """What a rule rests on."""
    return {"依据": pack.citation(rule), "性质": f"假定（{rule.note}）" if rule.assumption else "文件规定"}


_OF_A_PLATFORM = ("platform", "treasury")  # what the subjects of a platform begin with


def _titles(pack: Pack) -> Mapping[str, str]:
    rules: tuple[CodedRule, ...] = (
        *pack.directories,
        *pack.conditions,
        *pack.coverages,
        *pack.categories,
        *pack.items,
        *pack.benefits,
    )
    named: tuple[PackTreasury | CodedRule, ...] = (*pack.treasuries, *rules)
    return {each.code: each.title for each in named}


def _days(days: int) -> str:
    return f"{days} 个工作日"


def _months(months: int) -> str:
    return f"{months} 个月"


def _better(whose: str, value: Callable[[Any], int], *, less: bool = False) -> EffectOf:
    """An effect on one side: more of `value` helps it (or less of it). A rule that is not there gives nothing."""

    def effect(_: Pack, was: Any, becomes: Any) -> Effect:
        if less and (was is None or becomes is None):
            return Effect()
        change = (value(becomes) if becomes else 0) - (value(was) if was else 0)
        helps = change < 0 if less else change > 0
        return Effect() if change == 0 else Effect(gains=(whose,)) if helps else Effect(loses=(whose,))

    return effect


def _there(whose: str) -> EffectOf:
    """The rule itself is what helps."""
    return _better(whose, lambda _: 1)


def _not_there(whose: str) -> EffectOf:
    """The rule itself is what costs."""
    return _better(whose, lambda _: -1)


def _employer_share_effect(_: Pack, was: EmployerShareRule | None, becomes: EmployerShareRule | None) -> Effect:
    before, after = (parse_share(each.share) if each else Fraction(0) for each in (was, becomes))
    if before == after:
        return Effect()
    employer, treasuries = ("用人单位",), ("财政",)
    return Effect(treasuries, employer) if after > before else Effect(employer, treasuries)


def _sharing_effect(pack: Pack, was: SharingPlan | None, becomes: SharingPlan | None) -> Effect:
    if was is None or becomes is None:
        return Effect()
    before, after = ({born.bearer: parse_share(born.share) for born in plan.shares} for plan in (was, becomes))
    more = {bearer: after.get(bearer, 0) - before.get(bearer, 0) for bearer in {**before, **after}}
    return Effect(
        gains=tuple(titled(pack, bearer) for bearer, change in more.items() if change < 0),
        loses=tuple(titled(pack, bearer) for bearer, change in more.items() if change > 0),
    )


def _advance_effect(pack: Pack, was: CashAdvance | None, becomes: CashAdvance | None) -> Effect:
    if was is None or becomes is None or was.advanced_by == becomes.advanced_by:
        return Effect()
    return Effect((titled(pack, was.advanced_by),), (titled(pack, becomes.advanced_by),))


def _at_most_one_facets(pack: Pack, rule: AtMostOne) -> Facets:
    return {"名称": rule.title, "只能享受其一": "、".join(titled(pack, code) for code in rule.benefits)}


def _at_most_one_effect(_: Pack, was: AtMostOne | None, becomes: AtMostOne | None) -> Effect:
    """Who may have fewer benefits side by side loses."""
    before, after = (set(rule.benefits) if rule else set() for rule in (was, becomes))
    whose = ("人才本人",)
    return Effect(whose if before - after else (), whose if after - before else ())


def _looked_up(pack: Pack, directory: Directory) -> str:
    """The facts that a directory answers."""
    return "、".join(fact.title for fact in pack.facts if fact.directory == directory.code) or "无"


def _condition_facets(pack: Pack, rule: Condition) -> Facets:
    about_whom = [titled(pack, code) for code in (*rule.coverages, *rule.categories, *rule.items)]
    reviewed = [f"{title_in(pack.benefits, code)}以后各期（发放前复核）" for code in rule.instalments]
    return {
        "名称": rule.title,
        "适用": "、".join([*about_whom, *reviewed]),
        "条件": in_words(rule.when, pack.facts),
        "符合时": rule.passed,
        "不符合时": rule.failed,
        "不能确定时": rule.undetermined,
    }


def _item_facets(pack: Pack, item: Item) -> Facets:
    return {
        "名称": item.title,
        "种类": TITLES[item.kind],
        **(
            {"认定范围": "、".join(title_in(pack.coverages, code) for code in item.certifies)} if item.certifies else {}
        ),
        **({"变更内容": TITLES[item.changes]} if item.changes else {}),
        "材料": "、".join(material.title for material in item.materials) or "无",
        "流程": "；".join("、".join(_task(pack, task) for task in stage) for stage in item.stages) or "无须部门办理",
        "承诺时限": _days(item.promised_working_days),
        "法定时限": _days(item.statutory_working_days) if item.statutory_working_days else "无规定",
        "到办事现场": f"{item.visits} 次",
        "办理结果": item.result,
        "救济途径": item.remedy,
    }


def _benefit_facets(_: Pack, benefit: Benefit) -> Facets:
    return {
        "名称": benefit.title,
        "形式": TITLES[benefit.form],
        **({"房源": TITLES[benefit.gives_flat]} if benefit.gives_flat else {}),
        "每份给予": TITLES[benefit.claim_subject],
    }


def _task(pack: Pack, task: Task) -> str:
    where = "市级" if task.level is TaskLevel.CITY else ""
    return f"{where}{title_in(pack.departments, task.department)}{task.title}（{_days(task.limit_working_days)}）"


def _item_effect(pack: Pack, was: Item | None, becomes: Item | None) -> Effect:
    if was is None or becomes is None:
        return _there("申请人")(pack, was, becomes)
    asked = {material.code for material in was.materials}, {material.code for material in becomes.materials}
    burden = [(item.promised_working_days, item.visits) for item in (was, becomes)]
    easier = bool(asked[0] - asked[1]) or any(after < before for before, after in zip(*burden, strict=True))
    harder = bool(asked[1] - asked[0]) or any(after > before for before, after in zip(*burden, strict=True))
    return Effect(("申请人",) if easier else (), ("申请人",) if harder else ())


_LONGEST = 1000  # working days: no limit of a pack is longer


def _sooner(rule: GreenChannel) -> int:
    """What a channel is worth: the more, the shorter its limit; without one still more than no channel."""
    return _LONGEST + 1 - (rule.limit_working_days or _LONGEST)


def _correction_effect(pack: Pack, was: CorrectionTerms | None, becomes: CorrectionTerms | None) -> Effect:
    told = _better("申请人", lambda rule: rule.tell_defects_within_working_days, less=True)(pack, was, becomes)
    corrected = _better("申请人", lambda rule: rule.correct_within_working_days)(pack, was, becomes)
    return Effect(told.gains or corrected.gains, told.loses or corrected.loses)


WORDINGS: Mapping[type[Rule], Wording] = {
    Platform: Wording(
        "受理平台",
        lambda pack, rule: {
            "平台": rule.title,
            "服务的财政": "、".join(titled(pack, code) for code in rule.treasuries),
        },
    ),
    AffiliationOrder: Wording(
        "隶属关系的认定次序", lambda _, rule: {"次序": "、".join(TITLES[kind] for kind in rule.kinds)}
    ),
    ManualDecisionRule: Wording("由人工决定", lambda *_: {"分担方式": "人工决定"}),
    Coverage: Wording("政策覆盖范围", lambda _, rule: {"名称": rule.title}, _there("该类人才")),
    Category: Wording(
        "人才类别",
        lambda pack, rule: {"名称": rule.title, "覆盖范围": title_in(pack.coverages, rule.coverage)},
        _there("该类人才"),
    ),
    Directory: Wording(
        "企业目录",
        lambda pack, rule: {
            "名称": rule.title,
            "登记部门": keeper_of(pack, rule),
            "对照的情况": _looked_up(pack, rule),
        },
    ),
    Condition: Wording("条件", _condition_facets),
    Item: Wording("办理事项", _item_facets, _item_effect),
    Benefit: Wording(
        "待遇",
        _benefit_facets,
        _there("人才本人"),
    ),
    BenefitAmount: Wording(
        "待遇标准", lambda _, rule: {"金额": format_yuan(rule.fen)}, _better("人才本人", lambda rule: rule.fen)
    ),
    InstalmentPlan: Wording(
        "发放方式",
        lambda _, rule: {
            "期数": f"{rule.count} 期",
            **({"间隔": _months(rule.months_between)} if rule.count > 1 else {}),
            "起算": TITLES[rule.anchor],
            "逢非工作日": TITLES[rule.roll],
        },
    ),
    Exclusion: Wording("不享受的待遇", lambda *_: {"待遇": "不享受"}, _not_there("该类人才")),
    AtMostOne: Wording("只能享受其一的待遇", _at_most_one_facets, _at_most_one_effect),
    EmployerShareRule: Wording("用人单位承担", lambda _, rule: {"用人单位承担": rule.share}, _employer_share_effect),
    SharingPlan: Wording(
        "财政分担",
        lambda pack, rule: {
            **{f"{titled(pack, born.bearer)}承担": born.share for born in rule.shares},
            "尾差由": titled(pack, rule.remainder_to),
        },
        _sharing_effect,
    ),
    CashAdvance: Wording("先行支付", lambda pack, rule: {"先行支付": titled(pack, rule.advanced_by)}, _advance_effect),
    SettlementRoute: Wording(
        "结算路径",
        lambda pack, rule: {
            "路径": TITLES[rule.route],
            **({"经由": titled(pack, rule.through)} if rule.through else {}),
        },
    ),
    PayoutTerms: Wording(
        "兑现时限",
        lambda _, rule: {"认定后": _days(rule.due_within_working_days)},
        _better("人才本人", lambda rule: rule.due_within_working_days, less=True),
    ),
    OrderTerms: Wording("后续各期支付令", lambda _, rule: {"应付日前": _days(rule.working_days_before_due)}),
    Lights: Wording("预警", lambda _, rule: {"亮黄灯": f"剩余 {_days(rule.yellow_working_days_left)}以内"}),
    PublicNotice: Wording(
        "公示", lambda _, rule: {"公示": "必须" if rule.required else "可以", "公示期": _days(rule.working_days)}
    ),
    GreenChannel: Wording(
        "绿色通道",
        lambda _, rule: {"绿色通道": "适用", "各部门时限": shortened_to(rule)},
        _better("该类人才", _sooner),
    ),
    CorrectionTerms: Wording(
        "补正",
        lambda _, rule: {
            "一次性告知": _days(rule.tell_defects_within_working_days),
            "补正期限": _days(rule.correct_within_working_days),
        },
        _correction_effect,
    ),
    CertificationTerm: Wording(
        "认定有效期",
        lambda _, rule: {"有效期": _months(rule.validity_months)},
        _better("人才本人", lambda rule: rule.validity_months),
    ),
}
