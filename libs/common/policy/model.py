"""What a policy pack holds: immutable records, each with the document and article that it rests on.

Money is in fen, terms in working days. Days are days of Asia/Shanghai; `valid_to` is the last day of a rule.
A rule says by which date of an application its version is picked (`version_by`).
"""

from collections.abc import Iterator, Mapping
from datetime import date
from enum import StrEnum
from typing import Annotated, Literal, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from libs.common.dated import Dated
from libs.common.money import MAX_FEN, Share, parse_share
from libs.common.treasuries import AffiliationKind, EmployerKind, RegionCode, Treasury, TreasuryCode, TreasuryKind

T = TypeVar("T")

Code = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
RuleId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
Title = Annotated[str, Field(min_length=1, max_length=200)]
WorkingDays = Annotated[int, Field(ge=0, le=1000)]
Subject: TypeAlias = tuple[str, ...]
"""What a rule is about, as codes; the versions of one subject must not overlap."""


class Record(BaseModel):
    """Base of what is neither dated nor cited by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Cited(BaseModel):
    """What names its source: a document and an article, or an assumption with a note that says of what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    document: RuleId
    article: Title | None = None
    assumption: bool = False
    note: Annotated[str, Field(max_length=2000)] = ""

    @model_validator(mode="after")
    def _rests_on_something(self) -> Self:
        if self.assumption and not self.note:
            raise ValueError("标为假定的条目须在 note 中写明假定了什么，请补上。")
        if not self.assumption and self.article is None:
            raise ValueError("没有写明依据的条款，请填写 article，或标为假定（assumption: true）并写 note。")
        return self


class VersionBy(StrEnum):
    """The date of an application that picks the version of a rule."""

    ACCEPTED_ON = "accepted_on"
    DUE_ON = "due_on"


class Rule(Cited, Dated):
    """A rule: identified, cited, dated, and with the date that picks its version. `overrides` names rules of older or
    broader documents whose place it takes on its own days (`stack`)."""

    id: RuleId
    version_by: VersionBy
    overrides: tuple[RuleId, ...] = ()

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """What the rule is about; the empty subject where the pack has one such rule at a time."""
        return ((),)


class EligibilityRule(Rule):
    """A rule of eligibility, amount or term: its version is that of the day of acceptance, through to the end."""

    version_by: Literal[VersionBy.ACCEPTED_ON]


class CodedRule(EligibilityRule):
    """A rule that others refer to by its code; the title is what people read."""

    code: Code
    title: Title

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The code."""
        return ((self.code,),)


class DocumentKind(StrEnum):
    """The place of a document in the stack; an `interpretation` rules on what the others left open; `law` (of a higher
    authority) and `standard` are only cited."""

    BASE = "base"
    AMENDMENT = "amendment"
    DEPARTMENT_MEASURE = "department_measure"
    COUNTY_MEASURE = "county_measure"
    INTERPRETATION = "interpretation"
    LAW = "law"
    STANDARD = "standard"


class Document(Record):
    """A document of the stack; `articles` lists those that a rule may cite."""

    id: RuleId
    kind: DocumentKind
    number: Title
    title: Title
    issued_by: Title
    issued_on: date | None = None
    articles: tuple[Title, ...] = ()


class PackTreasury(Treasury, Cited):
    """A treasury with the source of its place in the policy."""


class Region(Cited):
    """A region of GB/T 2260."""

    code: RegionCode
    title: Title


class Department(Cited):
    """A department that tasks may be given to; the title is the official Chinese name."""

    code: Code
    title: Title


class Platform(EligibilityRule):
    """A talent-service platform (综合服务平台): it takes the applications of the treasuries it serves."""

    code: TreasuryCode
    title: Title
    treasuries: Annotated[tuple[TreasuryCode, ...], Field(min_length=1)]

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Its code, and each treasury that it serves."""
        return (("platform", self.code), *(("treasury", code) for code in self.treasuries))


class AffiliationOrder(EligibilityRule):
    """Which affiliation decides: the first kind of the list that the employer has on the day."""

    kinds: Annotated[tuple[AffiliationKind, ...], Field(min_length=1)]


class ManualDecisionRule(EligibilityRule):
    """Employers and treasuries that the rules leave to people."""

    employer_kinds: tuple[EmployerKind, ...] = ()
    treasury_kinds: tuple[TreasuryKind, ...] = ()

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Each kind that it names."""
        return tuple((kind,) for kind in (*self.employer_kinds, *self.treasury_kinds))


class Directory(CodedRule):
    """A directory of employers (企业目录): its keeper, a department of the city level, states who stands in it and from
    which day. Nobody stands in it on days on which it is not in force."""

    keeper: Code


SUBJECTS = ("person.", "employer.")
"""What facts are of: the beginnings of their names."""

FactName = Annotated[str, Field(pattern=r"^(person|employer)\.[a-z][a-z0-9_]{0,63}$")]
Expression = Annotated[str, Field(min_length=1, max_length=2000)]
"""A condition in CEL, over the facts that the pack declares."""


class FactType(StrEnum):
    """What kind of value a fact has."""

    BOOL = "bool"
    INT = "int"
    STRING = "string"


class FactFrom(StrEnum):
    """Who states a fact: the applicant, with a material; a department, as its recorded judgement; or the platform,
    which knows it from the filing itself or from a directory."""

    APPLICANT = "applicant"
    DEPARTMENT = "department"
    PLATFORM = "platform"


PLATFORM_FACTS: Mapping[str, FactType] = {"person.age": FactType.INT, "employer.kind": FactType.STRING}
"""What the platform knows of a filing by itself: full years of age on the day, and the kind of the employer."""


class FactValue(Record):
    """A value that a fact of type `string` may have."""

    code: Code
    title: Title


class Fact(Cited):
    """A declared variable of conditions: flat, typed, with who states it and the material that shows it.

    One that names a `directory` says whether the employer stands in it on the day of acceptance: the platform states
    it of whoever has an employer, so that it is then never unknown."""

    name: FactName
    title: Title
    type: FactType
    stated_by: FactFrom
    values: tuple[FactValue, ...] = ()
    material: Code | None = None
    department: Code | None = None
    directory: Code | None = None

    @property
    def titles(self) -> dict[str, str]:
        """The title of each value that it may have, by its code; empty where the type is not `string`."""
        return {value.code: value.title for value in self.values}

    @model_validator(mode="after")
    def _as_its_type_asks(self) -> Self:
        if bool(self.values) != (self.type is FactType.STRING):
            raise ValueError("type 为 string 的情况须列出 values，其他类型不列，请补上或删去 values。")
        _distinct(tuple(value.code for value in self.values))
        if (self.department is not None) != (self.stated_by is FactFrom.DEPARTMENT):
            raise ValueError("stated_by 为 department 的情况须写明 department，其他的不写，请补上或删去。")
        self._check_platform()
        return self

    def _check_platform(self) -> None:
        of_employer = self.name.startswith("employer.") and self.name not in PLATFORM_FACTS
        if self.directory is not None:
            if self.stated_by is not FactFrom.PLATFORM or self.type is not FactType.BOOL or not of_employer:
                raise ValueError(
                    "写有 directory 的情况说明用人单位是否列入该目录，须以 employer. 开头（平台自有的名称除外），"
                    "type 为 bool，stated_by 为 platform，请改正，或删去 directory。"
                )
        elif (self.stated_by is FactFrom.PLATFORM) != (PLATFORM_FACTS.get(self.name) is self.type):
            known = "、".join(f"{name}（{kind}）" for name, kind in PLATFORM_FACTS.items())
            raise ValueError(
                f"由平台提供的情况只有 {known}，以及写有 directory 的，且只能由平台提供，"
                f"请改正 stated_by、name 或 type，或写明 directory。"
            )


class Condition(CodedRule):
    """A clause on whom a coverage, category or item is for. `when` is true, false, or undetermined where a fact that
    counts is not known; each has its sentence. `failed` says what would have to change, `undetermined` what to show.

    `instalments` names benefits of which each instalment after the first is ordered only once a review of its own has
    passed: what is asked must still hold then (发放前复核)."""

    coverages: tuple[Code, ...] = ()
    categories: tuple[Code, ...] = ()
    items: tuple[Code, ...] = ()
    instalments: tuple[Code, ...] = ()
    when: Expression
    passed: Title
    failed: Title
    undetermined: Title

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if not (self.coverages or self.categories or self.items or self.instalments):
            raise ValueError("条件没有写明对象，请至少填写 coverages、categories、items、instalments 之一。")
        return self


class Coverage(CodedRule):
    """A way in which a person comes under the policy (第二条), apart from the category; certified by an item for it."""


class Category(CodedRule):
    """A category of talent: it decides amounts; its coverage decides exclusions."""

    coverage: Code


class Material(Record):
    """A material that an item asks for."""

    code: Code
    title: Title


class TaskLevel(StrEnum):
    """Whose department works a task: that of the affiliated treasury, or that of the city level."""

    AFFILIATED = "affiliated"
    CITY = "city"


class Task(Record):
    """A department's task of an item; one department has one task of an item at most."""

    department: Code
    title: Title
    limit_working_days: Annotated[int, Field(ge=1, le=1000)]
    level: TaskLevel = TaskLevel.AFFILIATED

    def within(self, limit: int | None) -> int:
        """Its limit in working days, or `limit` where that is the shorter one."""
        return self.limit_working_days if limit is None else min(self.limit_working_days, limit)


class ItemKind(StrEnum):
    """认定, 兑现, 服务事项, 变更."""

    CERTIFICATION = "certification"
    BENEFIT = "benefit"
    SERVICE = "service"
    CHANGE = "change"


class Changed(StrEnum):
    """What a change makes otherwise, beside the record of it: where the beneficiary's money goes."""

    PAYEE_ACCOUNT = "payee_account"


class Item(CodedRule):
    """A service item (服务事项). `stages` follow one another; the tasks within one are worked in parallel.

    An item of kind `benefit` has the code of its benefit. A certification names the coverages whose categories it
    certifies. A change may have no stage at all; `changes` is what it makes otherwise once its departments have passed
    it. The tasks' limits are what the city promises; `statutory_working_days` is what a law or a higher measure allows
    for the whole item, where one does. `visits` counts how often an applicant must come in person (到办事现场次数),
    `result` says what they get, `remedy` what they may do against it; a pack of before they were told stays readable.
    """

    kind: ItemKind
    certifies: tuple[Code, ...] = ()
    changes: Changed | None = None
    materials: tuple[Material, ...] = ()
    stages: tuple[Annotated[tuple[Task, ...], Field(min_length=1)], ...] = ()
    statutory_working_days: Annotated[int, Field(ge=1, le=1000)] | None = None
    visits: Annotated[int, Field(ge=0, le=9)] = 0
    result: Title = "办理结果"
    remedy: Title = "依法申请行政复议或者提起行政诉讼"

    @property
    def promised_working_days(self) -> int:
        """The longest that the item may take, in working days."""
        return self.longest()

    def longest(self, limit: int | None = None) -> int:
        """The longest that the item may take where no task may take more than `limit` (working days; None: than its
        own): stages follow one another, the tasks of one go on side by side."""
        return sum(max(task.within(limit) for task in stage) for stage in self.stages)

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        departments = [task.department for stage in self.stages for task in stage]
        if len(set(departments)) < len(departments):
            raise ValueError("同一部门在一个事项中只能有一项任务，请合并或删去重复的任务。")
        materials = [material.code for material in self.materials]
        if len(set(materials)) < len(materials):
            raise ValueError("同一材料在一个事项中只列一次，请删去重复的材料。")
        if not self.stages and self.kind is not ItemKind.CHANGE:
            raise ValueError("只有变更类事项可以没有办理任务，请在 stages 中写明由哪个部门办理。")
        if bool(self.certifies) != (self.kind is ItemKind.CERTIFICATION):
            raise ValueError("认定类事项须写明 certifies，其他事项不写，请补上或删去。")
        if self.changes is not None and self.kind is not ItemKind.CHANGE:
            raise ValueError("只有变更类事项可以写 changes，请删去，或改正 kind。")
        allowed = self.statutory_working_days
        if allowed is not None and self.promised_working_days > allowed:
            raise ValueError(
                f"各项任务合计 {self.promised_working_days} 个工作日，超过法定的 {allowed} 个工作日，请缩短任务时限。"
            )
        return self


class BenefitForm(StrEnum):
    """What a benefit gives."""

    MONEY = "money"
    IN_KIND = "in_kind"


class ClaimSubject(StrEnum):
    """What a benefit is given to once."""

    PERSON = "person"
    HOUSEHOLD = "household"
    PROPERTY = "property"


class FlatKind(StrEnum):
    """人才周转房, 人才公寓."""

    TRANSITIONAL = "transitional"
    APARTMENT = "apartment"


_FLAT_WHERE_UNSAID: Mapping[str, FlatKind] = {
    "talent_flat": FlatKind.TRANSITIONAL,
    "talent_apartment": FlatKind.APARTMENT,
}
"""What benefits in kind give in a pack of before it was told: their codes were fixed then."""


class Benefit(CodedRule):
    """A benefit that a certified person may have, and whom it is given to once. `flat` is the kind of flat that a
    benefit in kind gives; a pack of before it was told stays readable."""

    form: BenefitForm
    claim_subject: ClaimSubject
    flat: FlatKind | None = None

    @property
    def gives_flat(self) -> FlatKind | None:
        """The kind of flat that it gives; None where it gives money."""
        return (self.flat or _FLAT_WHERE_UNSAID.get(self.code)) if self.form is BenefitForm.IN_KIND else None

    @model_validator(mode="after")
    def _flats_in_kind(self) -> Self:
        if self.flat is not None and self.form is not BenefitForm.IN_KIND:
            raise ValueError("只有实物待遇（form 为 in_kind）才填写 flat，请删去 flat 或更正 form。")
        return self


class BenefitAmount(EligibilityRule):
    """The whole of a money benefit for a category, in fen, the employer's part included."""

    benefit: Code
    category: Code
    fen: Annotated[int, Field(ge=1, le=MAX_FEN)]

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Benefit and category."""
        return ((self.benefit, self.category),)


class Anchor(StrEnum):
    """From which day the instalments after the first are counted."""

    DECIDED_ON = "decided_on"
    FIRST_DUE_ON = "first_due_on"


class Roll(StrEnum):
    """Where a due day goes that is no working day."""

    NEXT = "next_working_day"
    PREVIOUS = "previous_working_day"


class InstalmentPlan(EligibilityRule):
    """In how many equal parts a benefit is paid, and when.

    Parts are rounded down to the fen and the last bears the remainder. The first falls due by the payout
    terms; number n falls due `months_between` times n-1 months after the anchor, rolled to a working day.
    """

    benefit: Code
    count: Annotated[int, Field(ge=1, le=240)]
    months_between: Annotated[int, Field(ge=0, le=60)]
    anchor: Anchor = Anchor.DECIDED_ON
    roll: Roll = Roll.NEXT

    @model_validator(mode="after")
    def _months_where_there_are_several(self) -> Self:
        if (self.count > 1) != (self.months_between > 0):
            raise ValueError("分多期的 months_between 应大于 0，只有一期的应为 0，请改正期数或间隔月数。")
        return self

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The benefit."""
        return ((self.benefit,),)


class Exclusion(EligibilityRule):
    """Benefits that people of a coverage do not get."""

    coverage: Code
    benefits: Annotated[tuple[Code, ...], Field(min_length=1)]

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Each benefit with the coverage."""
        return tuple((self.coverage, benefit) for benefit in self.benefits)


class AtMostOne(EligibilityRule):
    """Benefits of which a person, or a household, may have one: who asks for one or has it cannot ask for another."""

    title: Title
    benefits: Annotated[tuple[Code, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        _distinct(self.benefits)
        return self

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Each benefit."""
        return tuple((benefit,) for benefit in self.benefits)


class EmployerShareRule(Rule):
    """The employer's own share of benefits, rounded down to the fen; the rest is the public part."""

    benefits: Annotated[tuple[Code, ...], Field(min_length=1)]
    employer_kinds: Annotated[tuple[EmployerKind, ...], Field(min_length=1)]
    share: Share

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Each benefit with each kind of employer."""
        return tuple((benefit, kind) for benefit in self.benefits for kind in self.employer_kinds)


AFFILIATED = "affiliated"
Bearer = Annotated[str, Field(pattern=r"^(affiliated|[1-9][0-9]{5})$")]
"""Who bears a share: `affiliated` (the employer's treasury, whichever it is) or a treasury by its code."""


class BornShare(Record):
    """A bearer's share of the public part."""

    bearer: Bearer
    share: Share


class SharingPlan(Rule):
    """How treasuries share the public part of benefits.

    The plan is for kinds of treasury, or for single treasuries by code, which then goes before the plan of
    their kind. Every share is rounded down to the fen but that of the bearer named in `remainder_to`.
    """

    benefits: Annotated[tuple[Code, ...], Field(min_length=1)]
    treasury_kinds: tuple[TreasuryKind, ...] = ()
    treasuries: tuple[TreasuryCode, ...] = ()
    shares: Annotated[tuple[BornShare, ...], Field(min_length=1)]
    remainder_to: Bearer = AFFILIATED

    @model_validator(mode="after")
    def _shares_are_the_whole(self) -> Self:
        if not self.treasury_kinds and not self.treasuries:
            raise ValueError("分担方案没有写明适用的财政，请填写 treasury_kinds 或 treasuries。")
        bearers = _distinct(tuple(born.bearer for born in self.shares))
        if self.remainder_to not in bearers:
            raise ValueError(f"承担尾差的 {self.remainder_to} 不在 shares 之列，请把 remainder_to 改为其中一个承担者。")
        total = sum(parse_share(born.share) for born in self.shares)
        if total != 1:
            raise ValueError(f"各承担比例合计为 {total}，应为 1，请改正 shares 中的比例。")
        return self

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Each benefit with each kind of treasury, or each treasury, that the plan names."""
        return tuple(
            (benefit, whose) for benefit in self.benefits for whose in (*self.treasury_kinds, *self.treasuries)
        )


class CashAdvance(Rule):
    """Who pays the whole public part at once and holds receivables on the others."""

    treasury_kinds: Annotated[tuple[TreasuryKind, ...], Field(min_length=1)]
    advanced_by: Bearer = AFFILIATED

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Each kind of treasury."""
        return tuple((kind,) for kind in self.treasury_kinds)


class RouteKind(StrEnum):
    """How what one treasury owes another reaches it."""

    DIRECT = "direct"
    VIA_PROVINCE = "via_province"


class SettlementRoute(Rule):
    """The settlement route of treasuries; `through` is the clearing treasury of `via_province`."""

    treasuries: Annotated[tuple[TreasuryCode, ...], Field(min_length=1)]
    route: RouteKind
    through: TreasuryCode | None = None

    @model_validator(mode="after")
    def _through_where_via(self) -> Self:
        if (self.route is RouteKind.VIA_PROVINCE) != (self.through is not None):
            raise ValueError("经省结算（via_province）的须写明 through，直接结算的不写，请补上或删去。")
        if self.through in self.treasuries:
            raise ValueError(f"{self.through} 不能经自身结算，请改正 through，或改为直接结算。")
        return self

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Each treasury."""
        return tuple((code,) for code in self.treasuries)


class PayoutTerms(EligibilityRule):
    """By when, from `decided_on`, the public part of the first instalment is in the payee's account.

    `scope` says that the term binds the treasuries only: the employer's share is outside the promise.
    """

    due_within_working_days: WorkingDays
    scope: Literal["public_part"]


class OrderTerms(EligibilityRule):
    """How long before its due day the order of a later instalment is made."""

    working_days_before_due: WorkingDays


class Lights(EligibilityRule):
    """Yellow when so many working days or fewer are left; red past the limit; green before both."""

    yellow_working_days_left: WorkingDays


class PublicNotice(EligibilityRule):
    """A public notice (公示) of a proposed certification, over so many working days, before it is confirmed: always, or
    where an officer wants it."""

    items: Annotated[tuple[Code, ...], Field(min_length=1)]
    working_days: Annotated[int, Field(ge=1, le=60)]
    required: bool

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Each item."""
        return tuple((item,) for item in self.items)


class GreenChannel(EligibilityRule):
    """The green channel (绿色通道, 第六条): talent of these categories has these items worked ahead of the rest. Where
    there is a limit, each department has at most so many working days for its task of such an item."""

    categories: Annotated[tuple[Code, ...], Field(min_length=1)]
    items: Annotated[tuple[Code, ...], Field(min_length=1)]
    limit_working_days: Annotated[int, Field(ge=1, le=1000)] | None = None

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        _distinct(self.categories)
        _distinct(self.items)
        return self

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Each item with each category."""
        return tuple((item, category) for item in self.items for category in self.categories)


class CorrectionTerms(EligibilityRule):
    """Until when all defects are told at once, and how long the applicant has before the application lapses."""

    tell_defects_within_working_days: WorkingDays
    correct_within_working_days: WorkingDays


class CertificationTerm(EligibilityRule):
    """How long a certification is valid, in months from `decided_on`."""

    validity_months: Annotated[int, Field(ge=1, le=1200)]


class Contents(Record):
    """Everything that stands in a pack's file."""

    city: Code
    case_prefix: Annotated[
        str, Field(pattern=r"^[A-Z]{2}$", description="the city's two letters at the head of each case number")
    ]
    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.-]{0,31}$")]
    title: Title
    in_force_from: date
    documents: Annotated[tuple[Document, ...], Field(min_length=1)]
    regions: tuple[Region, ...]
    treasuries: Annotated[tuple[PackTreasury, ...], Field(min_length=1)]
    platforms: tuple[Platform, ...]
    affiliation_order: tuple[AffiliationOrder, ...]
    manual_decisions: tuple[ManualDecisionRule, ...]
    departments: tuple[Department, ...]
    coverages: tuple[Coverage, ...]
    categories: tuple[Category, ...]
    items: tuple[Item, ...]
    benefits: tuple[Benefit, ...]
    amounts: tuple[BenefitAmount, ...]
    instalment_plans: tuple[InstalmentPlan, ...]
    exclusions: tuple[Exclusion, ...]
    employer_shares: tuple[EmployerShareRule, ...]
    sharing_plans: tuple[SharingPlan, ...]
    cash_advances: tuple[CashAdvance, ...]
    settlement_routes: tuple[SettlementRoute, ...]
    payout_terms: tuple[PayoutTerms, ...]
    order_terms: tuple[OrderTerms, ...]
    lights: tuple[Lights, ...]
    public_notices: tuple[PublicNotice, ...]
    correction_terms: tuple[CorrectionTerms, ...]
    certification_terms: tuple[CertificationTerm, ...]
    facts: tuple[Fact, ...] = ()
    conditions: tuple[Condition, ...] = ()
    at_most_one: tuple[AtMostOne, ...] = ()
    directories: tuple[Directory, ...] = ()
    green_channels: tuple[GreenChannel, ...] = ()

    def rules(self) -> Iterator[Rule]:
        """Go through every rule of the pack, in the order of the file's sections."""
        for section in type(self).model_fields:
            value = getattr(self, section)
            if isinstance(value, tuple):
                yield from (record for record in value if isinstance(record, Rule))


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError("列表中有重复的值，请删去重复的。")
    return values
