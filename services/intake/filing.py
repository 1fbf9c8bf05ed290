"""What a filing says: its shape, and every way in which its values can be wrong, told at once.

A value that is malformed or cannot be true (a wrong check digit, a birth date that does not exist, a code that the
policy does not hold) is refused with 422 and nothing is stored. A filing that is incomplete or not in order is taken
in: its defects are `domain.py`.
"""

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from libs.common import identity
from libs.common.dated import Day
from libs.common.errors import DomainError, FieldError, InvalidRequest
from libs.common.field_errors import field_errors
from libs.common.identity import DocumentType
from libs.common.policy import Pack, PolicyError, treasury_of_region
from libs.common.policy.model import Platform
from libs.common.treasuries import AffiliationKind, EmployerKind


class FilingWrong(DomainError):
    """422: the filing is well-formed, but some values cannot be true; `errors` names each. Nothing was stored."""

    status, code, title = 422, "filing-wrong", "填报内容有误"
    detail = "请按 errors 中逐项列出的说明核对改正后重新提交。"
    semantic: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Reading:
    """What values are checked against: the policy, and today in Asia/Shanghai."""

    pack: Pack
    today: date


def read_filing(raw: Mapping[str, Any], pack: Pack, today: date) -> "Filing":
    """Read a filing. Raises FilingWrong, or InvalidRequest where its form is wrong: both with every problem at once."""
    try:
        return Filing.model_validate(raw, context=Reading(pack, today))
    except ValidationError as error:
        defects = error.errors(include_url=False, include_input=False)
        raise refusal(defects, raw) from None


def refusal(defects: Iterable[ErrorDetails], raw: Mapping[str, Any]) -> DomainError:
    """What pydantic found wrong, as the refusal it is: of form where any of it is of form, else of substance."""
    found = field_errors([{**defect, "loc": ("body", *defect["loc"])} for defect in defects], raw)
    ours = all(error.code in _TITLES for error in found)
    return (FilingWrong if ours else InvalidRequest)(errors=[_titled(error) for error in found])


_SEE_POLICY = "请按 GET /intake/v1/policy 列出的代码填写。"
WORDS: Mapping[str, tuple[str, str]] = {
    "control-character": ("含有控制字符", "请删去换行、制表符等不可见字符后重新填写。"),
    "birth-date-in-future": ("出生日期晚于今日", "请核对出生日期。"),
    "birth-date-differs": ("出生日期与证件号码不符", "请核对出生日期和证件号码。"),
    "ends-before-it-begins": ("截止日期早于起始日期", "请核对起止日期。"),
    "unknown-item": ("没有此服务事项", _SEE_POLICY),
    "unknown-category": ("没有此人才类别", _SEE_POLICY),
    "unknown-treasury": ("没有此一级财政", _SEE_POLICY),
    "unknown-platform": ("没有此服务平台", _SEE_POLICY),
    "unknown-region": ("该地区不在政策范围内", _SEE_POLICY),
    "unknown-material": ("没有此材料", _SEE_POLICY),
    "item-twice": ("同一事项填报了两次", "同一事项请只填报一次。"),
    "material-twice": ("同一材料填报了两次", "同一材料请只填报一次；补充文件请通过材料接口上传。"),
}
"""Every code of a filing's own, with its title and what to do."""

_TITLES = identity.TITLES | {code: title for code, (title, _) in WORDS.items()}


def _titled(error: FieldError) -> FieldError:
    return FieldError(error.field, error.code, _TITLES.get(error.code, error.title), error.detail)


# -- single values


def _clean(text: str) -> str:
    if any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in text):
        raise _wrong("control-character")
    return text


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


def _credit_code(text: str) -> str:
    _told(identity.check_credit_code(text))
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


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_clean)]
Token = Annotated[str, Field(pattern=r"^[!-~]{1,100}$", description="可见 ASCII 字符")]
PersonName = Annotated[str, Field(max_length=400), AfterValidator(_name)]
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

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.valid_from and self.valid_to and self.valid_to < self.valid_from:
            raise _wrong("ends-before-it-begins")
        return self


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
    def _as_in_the_number(cls, birth: date | None, info: ValidationInfo) -> date | None:
        if birth is not None and birth > _reading(info).today:
            raise _wrong("birth-date-in-future")
        for document in info.data.get("documents", ()):
            try:
                stated = identity.read_resident_number(document.number).birth
            except ValueError:
                continue
            if birth is not None and birth != stated:
                raise _wrong("birth-date-differs")
        return birth


class FiledLink(Shape):
    """A member of the beneficiary's family."""

    relation: Literal["spouse", "child"]
    person: FiledPerson


class FiledBeneficiary(FiledPerson):
    """The talent whom the application is for."""

    links: Annotated[list[FiledLink], Field(max_length=10)] = []


class FiledApplicant(Shape):
    """Who applies: the employer named in `employer`, or a person (the beneficiary where none is named)."""

    kind: Literal["person", "employer"]
    person: FiledPerson | None = None


class FiledAuthority(Spanned):
    """What the handler may act on: nothing but themselves, a power of attorney, or the employer's mandate."""

    kind: Literal["self", "power_of_attorney", "employer_mandate"]
    evidence: Text | None = Field(default=None, description="授权委托书或单位授权文件的编号、名称")


class FiledHandler(Shape):
    """The person who handles the application for the applicant, with their authority."""

    person: FiledPerson
    authority: FiledAuthority | None = None


class FiledAffiliation(Spanned):
    """How the employer belongs to a treasury; open at the start where `from` is left out."""

    kind: AffiliationKind
    treasury: TreasuryCode
    evidence: Text


class FiledEmployer(Shape):
    """The employer. Without affiliations those on record count."""

    name: Text
    credit_code: Annotated[str, Field(max_length=64), AfterValidator(_credit_code)]
    kind: EmployerKind
    status: Literal["active", "suspended", "closed"] = "active"
    affiliations: Annotated[list[FiledAffiliation], Field(max_length=10)] = []


class FiledAccount(Shape):
    """The payee's bank account; the branch number is the 12 digits of CNAPS."""

    holder: PersonName
    bank: Text
    branch_no: Annotated[str, Field(pattern=r"^[0-9]{12}$")]
    number: Annotated[str, Field(pattern=r"^[0-9]{8,30}$")]


class FiledItem(Shape):
    """One item. A certification names the category; a benefit may name the number of an earlier certification."""

    code: ItemCode
    category: CategoryCode | None = None
    certification: Token | None = None


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
    external_refs: Annotated[list[FiledExternalRef], Field(max_length=10)] = []

    @field_validator("items")
    @classmethod
    def _each_item_once(cls, items: list[FiledItem]) -> list[FiledItem]:
        if len({item.code for item in items}) < len(items):
            raise _wrong("item-twice")
        return items

    @field_validator("materials")
    @classmethod
    def _each_material_once(cls, materials: list[FiledMaterial]) -> list[FiledMaterial]:
        if len({material.code for material in materials}) < len(materials):
            raise _wrong("material-twice")
        return materials


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


def corrected(filed: Mapping[str, Any], correction: Mapping[str, Any]) -> dict[str, Any]:
    """The filing with a correction on it, both as they were sent. Unknown fields stay, for `read_filing` to name."""
    materials = {material["code"]: material for material in filed.get("materials", ())}
    given = correction.get("materials")
    if isinstance(given, list) and all(isinstance(it, dict) and isinstance(it.get("code"), str) for it in given):
        replaced = {material["code"] for material in given}  # what is given twice stays twice, to be refused
        merged = [material for code, material in materials.items() if code not in replaced] + given
        return {**filed, **correction, "materials": merged}
    return {**filed, **correction}


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
