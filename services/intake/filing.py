"""What a filing says: its shape, and every way in which its values can be wrong, told at once.

A value that is malformed or cannot be true (a wrong check digit, a birth date that does not exist, a code that the
policy does not hold) is refused with 422 and nothing is stored. A filing that is incomplete or not in order is taken
in: its defects are `domain.py`.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from libs.common import identity
from libs.common.dated import Day
from libs.common.errors import DomainError, FieldError, InvalidRequest
from libs.common.facts import StatedFacts, wrong_facts
from libs.common.field_errors import field_errors, of_form
from libs.common.identity import DocumentType
from libs.common.policy import Pack, PolicyError, certifies, treasury_of_region
from libs.common.policy.model import FactFrom, ItemKind, Platform
from libs.common.treasuries import AffiliationKind, EmployerKind
from libs.common.wire import NOT_BLANK
from libs.common.words import ONE_LINE


class FilingWrong(DomainError):
    """422: the filing is well-formed, but some values cannot be true; `errors` names each. Nothing was stored."""

    status, code, title = 422, "filing-wrong", "填报内容有误"
    detail = "请按 errors 中逐项列出的说明核对改正后重新提交。"
    semantic: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Reading:
    """What values are checked against: the policy, today in Asia/Shanghai, and the window's platform at a window."""

    pack: Pack
    today: date
    window: str | None = None


def read_filing(raw: Mapping[str, Any], pack: Pack, today: date, *, window: str | None = None) -> "Filing":
    """Read a filing; at a window, whose platform it names. Raises FilingWrong, or InvalidRequest where its form is
    wrong: both with every problem at once."""
    return _read(raw, Reading(pack, today, window), ())


def read_correction(filed: Mapping[str, Any], raw: Mapping[str, Any], pack: Pack, today: date) -> "Filing":
    """Read a filing with a correction on it, both as they were sent. Raises what `read_filing` does."""
    fixed = set(Filing.model_fields) - set(Correction.model_fields)
    barred = [fault("not-correctable", (field,)) for field in raw if field in fixed]
    given = {field: value for field, value in raw.items() if field not in fixed}
    return _read(corrected(filed, given), Reading(pack, today), barred)


def _read(raw: Mapping[str, Any], reading: Reading, faults: Iterable[Mapping[str, Any]]) -> "Filing":
    found = [*faults, *_at_odds(raw), *_applicants_facts(raw.get("facts"), reading.pack)]
    try:
        filing = Filing.model_validate(raw, context=reading)
    except ValidationError as error:
        raise refusal([*error.errors(include_url=False, include_input=False), *found], raw) from None
    if found:
        raise refusal(found, raw)
    return filing


def refusal(defects: Sequence[Mapping[str, Any]], raw: Mapping[str, Any]) -> DomainError:
    """The refusal of these defects: of form where any of them is of form, else of substance."""
    found = field_errors([{**defect, "loc": ("body", *defect["loc"])} for defect in defects], raw)
    return (InvalidRequest if of_form(defects) else FilingWrong)(errors=[_titled(error) for error in found])


_SEE_POLICY = "请按 GET /intake/v1/policy 列出的代码填写。"
WORDS: Mapping[str, tuple[str, str]] = {
    "birth-date-in-future": ("出生日期晚于今日", "请核对出生日期。"),
    "birth-date-differs": ("出生日期与证件号码不符", "请核对出生日期和证件号码。"),
    "ends-before-it-begins": ("截止日期早于起始日期", "请核对起止日期。"),
    "unknown-item": ("没有此服务事项", _SEE_POLICY),
    "unknown-category": ("没有此人才类别", _SEE_POLICY),
    "category-not-of-item": (
        "该事项不认定此人才类别",
        "请改报认定此类别的事项，或者核对人才类别；各事项认定的类别见 GET /intake/v1/policy。",
    ),
    "unknown-treasury": ("没有此一级财政", _SEE_POLICY),
    "unknown-platform": ("没有此服务平台", _SEE_POLICY),
    "unknown-region": ("该地区不在政策范围内", _SEE_POLICY),
    "unknown-material": ("没有此材料", _SEE_POLICY),
    "fact-not-yours": ("此事实不由申请人说明", "请删除此项；由部门核实登记，或者由平台按填报内容得出。"),
    "platform-not-yours": ("不是您所在的平台", "窗口只能在本平台收件，请改为本平台或者留空。"),
    "not-correctable": ("不能补正的项", "补正不能更改此项；请删除，或者撤回后重新提交。"),
    "filer-not-named": (
        "您不是该申请的申请人或经办人",
        "请核对所填证件是否为本人已登记的证件；代他人申请的，本人应为经办人并填写授权。尚未登记的，请先通过省级门户或窗口办理。",
    ),
    "item-twice": ("同一事项填报了两次", "同一事项请只填报一次。"),
    "material-twice": ("同一材料填报了两次", "同一材料请只填报一次；补充文件请通过材料接口上传。"),
}
"""Every code of a filing's own, with its title and what to do."""

_TITLES = identity.TITLES | {code: title for code, (title, _) in WORDS.items()}


def wrong_field(field: str, code: str) -> FieldError:
    """What is wrong with a field, in the words of `WORDS`."""
    return FieldError(field, code, *WORDS[code])


def _titled(error: FieldError) -> FieldError:
    return FieldError(error.field, error.code, _TITLES.get(error.code, error.title), error.detail)


# -- single values


def _told(problems: Iterable[identity.Problem]) -> None:
    wrong = [problem for problem in problems if not problem.warning]
    if wrong:
        details = "；".join(problem.detail for problem in wrong)
        raise PydanticCustomError(_literal(wrong[0].code), _literal(details.replace("{", "").replace("}", "")))


def _wrong(code: str) -> PydanticCustomError:
    return PydanticCustomError(_literal(code), _literal(WORDS[code][1]))


def _literal(text: str) -> Any:
    return text  # pydantic_core wants a LiteralString; ours come from the tables here and of identity.py


def _name(text: str) -> str:
    _told(identity.check_name(text))
    return identity.normalise_name(text)


def read_credit_code(text: str) -> str:
    """A unified social credit code as it is stored and looked up. Raises PydanticCustomError where it is none."""
    _told(identity.check_credit_code(text))
    return identity.normalise_number(text)


def _certification_number(text: str) -> str:
    _told(identity.check_certification_number(text))
    return identity.normalise_number(text)


def _in_policy(code: str, look_up: Callable[[Reading, str], object]) -> Any:
    def check(value: str, info: ValidationInfo) -> str:
        try:
            found = look_up(_reading(info), value)
        except PolicyError:
            found = None
        if found is None:
            raise _wrong(code)
        return value

    return AfterValidator(check)


def _reading(info: ValidationInfo) -> Reading:
    if not isinstance(info.context, Reading):
        raise TypeError("a filing is read by read_filing, which knows the policy")
    return info.context


def _material(reading: Reading, code: str) -> object:
    return next((it for item in reading.pack.items for it in item.materials if it.code == code), None)


Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=NOT_BLANK), ONE_LINE
]
Token = Annotated[str, Field(pattern=r"^[!-~]{1,100}$", description="可见 ASCII 字符")]
PersonName = Annotated[str, Field(max_length=400), AfterValidator(_name)]
CreditCode = Annotated[str, Field(max_length=64), AfterValidator(read_credit_code)]
CertificationNumber = Annotated[
    str, Field(max_length=64, description="19 位认定编号"), AfterValidator(_certification_number)
]
Code = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
SixDigits = Annotated[str, Field(pattern=r"^[1-9][0-9]{5}$")]
ItemCode = Annotated[Code, _in_policy("unknown-item", lambda r, code: r.pack.item(code, r.today))]
CategoryCode = Annotated[Code, _in_policy("unknown-category", lambda r, code: r.pack.category(code, r.today))]
MaterialCode = Annotated[Code, _in_policy("unknown-material", _material)]
TreasuryCode = Annotated[SixDigits, _in_policy("unknown-treasury", lambda r, code: r.pack.treasury(code, r.today))]
PlatformCode = Annotated[
    SixDigits,
    _in_policy("unknown-platform", lambda r, c: r.pack.find_rule(Platform, "platform", c, on=r.today)),
]
RegionCode = Annotated[
    SixDigits, _in_policy("unknown-region", lambda r, code: treasury_of_region(r.pack, code, r.today))
]


# -- shapes


class Shape(BaseModel):
    """Base of what is filed: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Spanned(Shape):
    """What holds from a first to a last day, both included; either may be open."""

    valid_from: Day | None = Field(default=None, alias="from")
    valid_to: Day | None = Field(default=None, alias="to")


class FiledDocument(Spanned):
    """One document of a person."""

    type: DocumentType
    number: Annotated[str, Field(max_length=64)]

    @field_validator("number")
    @classmethod
    def _right(cls, number: str, info: ValidationInfo) -> str:
        kind = info.data.get("type")
        if kind is not None:
            _told(identity.check_document(kind, number, on=_reading(info).today))
        return identity.normalise_number(number)


class FiledPerson(Shape):
    """A person: the legal name as in the document, and at least one document."""

    name: PersonName
    documents: Annotated[list[FiledDocument], Field(min_length=1, max_length=6)]
    latin_name: PersonName | None = None
    former_names: Annotated[list[PersonName], Field(max_length=5)] = []
    birth_date: Day | None = Field(default=None, description="证件号码不含出生日期时填写")
    phone: Annotated[str, Field(pattern=r"^\+?[0-9][0-9 -]{4,18}[0-9]$")] | None = None

    @field_validator("birth_date")
    @classmethod
    def _born(cls, birth: date | None, info: ValidationInfo) -> date | None:
        if birth is not None and birth > _reading(info).today:
            raise _wrong("birth-date-in-future")
        return birth


class FiledLink(Shape):
    """A member of the beneficiary's family."""

    relation: Literal["spouse", "child"]
    person: FiledPerson


class FiledBeneficiary(FiledPerson):
    """The talent whom the application is for."""

    links: Annotated[list[FiledLink], Field(max_length=10)] = []


class FiledApplicant(Shape):
    """Who applies: the employer named in `employer`, or a person (the beneficiary where none is named).

    An employer acts through the handler, and so does whoever applies for another one.
    """

    kind: Literal["person", "employer"]
    person: FiledPerson | None = None


class FiledAuthority(Spanned):
    """What the handler may act on: that they apply for themselves, a power of attorney, or the employer's mandate."""

    kind: Literal["self", "power_of_attorney", "employer_mandate"]
    evidence: Text | None = Field(default=None, description="授权委托书或单位授权文件的编号、名称")


class FiledHandler(Shape):
    """The person who handles the application for the applicant, with their authority."""

    person: FiledPerson
    authority: FiledAuthority | None = None


class FiledAffiliation(Spanned):
    """How the employer belongs to a treasury. Where `from` is left out it is open at the start, and restates no day of
    which something is on record."""

    kind: AffiliationKind
    treasury: TreasuryCode
    evidence: Text


class FiledEmployer(Shape):
    """The employer. Without affiliations those on record count."""

    name: Text
    credit_code: CreditCode
    kind: EmployerKind
    status: Literal["active", "suspended", "closed"] = "active"
    affiliations: Annotated[list[FiledAffiliation], Field(max_length=10)] = []


class FiledAccount(Shape):
    """The payee's bank account; the branch number is the 12 digits of CNAPS."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "holder": "王小明",
                    "bank": "中国银行安阳分行",
                    "branch_no": "104496000017",
                    "number": "6217000010001234567",
                }
            ]
        }
    )

    holder: PersonName
    bank: Text
    branch_no: Annotated[str, Field(pattern=r"^[0-9]{12}$")]
    number: Annotated[str, Field(pattern=r"^[0-9]{8,30}$")]


class FiledItem(Shape):
    """One item. A certification names the category; a benefit may name the number of an earlier certification."""

    code: ItemCode
    category: CategoryCode | None = None
    certification: CertificationNumber | None = None

    @field_validator("category")
    @classmethod
    def _of_this_item(cls, category: str | None, info: ValidationInfo) -> str | None:
        code, reading = info.data.get("code"), _reading(info)
        if (
            category is None
            or code is None
            or reading.pack.item(code, reading.today).kind is not ItemKind.CERTIFICATION
        ):
            return category
        if not certifies(reading.pack, item=code, category=category, on=reading.today):
            raise _wrong("category-not-of-item")
        return category


class FiledMaterial(Shape):
    """One material. An electronic licence counts like paper; `promised` (容缺受理) names the last day, `by`."""

    code: MaterialCode
    evidence: Literal["electronic_licence", "promised", "upload"]
    reference: Text | None = Field(default=None, description="电子证照编号")
    by: Day | None = None


class FiledExternalRef(Shape):
    """The application's number in another system; unique per system."""

    system: Code
    kind: Code
    value: Token


class Filing(Shape):
    """An application as it is filed."""

    channel: Literal["online", "on_site"]
    platform: PlatformCode | None = Field(
        default=None, description="收件平台；窗口受理时为窗口所在平台，网上申请不填则直接进入隶属平台"
    )
    region: RegionCode | None = Field(default=None, description="无用人单位时，受益人所在县（市、区）的代码")
    applicant: FiledApplicant
    beneficiary: FiledBeneficiary
    handler: FiledHandler | None = None
    employer: FiledEmployer | None = None
    payee_account: FiledAccount | None = None
    items: Annotated[list[FiledItem], Field(min_length=1, max_length=20)]
    materials: Annotated[list[FiledMaterial], Field(max_length=50)] = []
    facts: Annotated[
        StatedFacts,
        Field(description="由申请人说明的事实，名称和取值见 GET /intake/v1/policy；不清楚的不填"),
    ] = {}
    external_refs: Annotated[list[FiledExternalRef], Field(max_length=10)] = []

    @field_validator("platform")
    @classmethod
    def _at_this_window(cls, platform: str | None, info: ValidationInfo) -> str | None:
        if platform is not None and _reading(info).window not in {None, platform}:
            raise _wrong("platform-not-yours")
        return platform

    def parties(self) -> dict[str, FiledPerson]:
        """Who is a party to it, by place. Members of the family are none."""
        found: dict[str, FiledPerson] = {"/beneficiary": self.beneficiary}
        if self.applicant.person is not None and self.applicant.kind == "person":
            found["/applicant/person"] = self.applicant.person
        if self.handler is not None:
            found["/handler/person"] = self.handler.person
        return found


class Correction(Shape):
    """What a correction replaces: each field given takes the place of the filed one; materials are joined by code."""

    region: RegionCode | None = None
    applicant: FiledApplicant | None = None
    beneficiary: FiledBeneficiary | None = None
    handler: FiledHandler | None = None
    employer: FiledEmployer | None = None
    payee_account: FiledAccount | None = None
    items: Annotated[list[FiledItem], Field(min_length=1, max_length=20)] | None = None
    materials: Annotated[list[FiledMaterial], Field(max_length=50)] = []
    facts: StatedFacts | None = None


PEOPLE = frozenset({"applicant", "beneficiary", "handler"})
"""The fields of a filing that name its parties."""


def corrected(filed: Mapping[str, Any], correction: Mapping[str, Any]) -> dict[str, Any]:
    """The filing with a correction on it, both as they were sent. Unknown fields stay, to be named; so does what is
    given twice. The given materials come first: a place among them is the sender's own count."""
    given = correction.get("materials")
    if isinstance(given, list):
        replaced = [material.get("code") for material in given if isinstance(material, dict)]
        kept = [material for material in filed.get("materials", ()) if material["code"] not in replaced]
        return {**filed, **correction, "materials": [*given, *kept]}
    return {**filed, **correction}


# -- values that are at odds with one another
#
# Read from the document as it was sent: pydantic looks at a whole only once every part of it is right, so that these
# would be told in a second round.


def _at_odds(raw: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for code, field in (("item-twice", "items"), ("material-twice", "materials")):
        yield from _twice(raw.get(field), code, field)
    for place, one in _objects(raw):
        first, last = _day(one.get("from")), _day(one.get("to"))
        if first and last and last < first:
            yield fault("ends-before-it-begins", (*place, "to"))
        birth = _day(one.get("birth_date"))
        if birth and any(stated != birth for stated in _births(one.get("documents"))):
            yield fault("birth-date-differs", (*place, "birth_date"))


def _applicants_facts(stated: object, pack: Pack) -> Iterator[Mapping[str, Any]]:
    if not isinstance(stated, dict):
        return
    yield from wrong_facts(stated, pack)
    for name in stated:
        fact = pack.facts_by_name.get(name)
        if fact is not None and fact.stated_by is not FactFrom.APPLICANT:
            yield fault("fact-not-yours", ("facts", name))


def fault(code: str, place: tuple[str | int, ...]) -> Mapping[str, Any]:
    """What is wrong at a place, in the words of `WORDS`, as `refusal` takes it."""
    return {"type": code, "loc": place, "msg": WORDS[code][1]}


def _twice(entries: object, code: str, field: str) -> Iterator[Mapping[str, Any]]:
    seen: set[str] = set()
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        named = entry.get("code") if isinstance(entry, dict) else None
        if isinstance(named, str):
            if named in seen:
                yield fault(code, (field, index, "code"))
            seen.add(named)


def _objects(raw: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], Mapping[str, Any]]]:
    """Every object of a document with its place; no recursion, for whoever sends it decides how deep it is."""
    ahead: deque[tuple[tuple[str | int, ...], Any]] = deque([((), raw)])
    while ahead:
        place, value = ahead.popleft()
        if isinstance(value, dict):
            yield place, value
            ahead.extend(((*place, name), part) for name, part in value.items())
        elif isinstance(value, list):
            ahead.extend(((*place, index), part) for index, part in enumerate(value))


def _births(documents: object) -> Iterator[date]:
    for document in documents if isinstance(documents, list) else ():
        number = document.get("number") if isinstance(document, dict) else None
        with suppress(ValueError):  # the number of a passport states no birth date
            yield identity.read_resident_number(number if isinstance(number, str) else "").birth


def _day(value: object) -> date | None:
    try:
        return _DAY.validate_python(value)
    except ValidationError:
        return None


_DAY: TypeAdapter[date | None] = TypeAdapter(Day | None)


class _Documented:
    """A body that an operation reads itself (it needs the policy in force), documented as the model it will be."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model

    def __get_pydantic_core_schema__(self, _source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(_unread, handler.generate_schema(self._model))


def _unread(value: object, read: ValidatorFunctionWrapHandler) -> object:
    return value if isinstance(value, dict) else read(value)


RawFiling = Annotated[dict[str, Any], _Documented(Filing)]
RawCorrection = Annotated[dict[str, Any], _Documented(Correction)]
