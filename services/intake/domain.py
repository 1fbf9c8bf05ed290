"""What becomes of a filing: its states, its defects, its place and its verdict. No SQL, no HTTP, no clock.

The affiliated treasury is that of the employer on the day, by the affiliations given or, where none is, those on
record. Affiliations that would put the employer at another treasury than those on record are a defect, unless they were
shown at the window of the treasury that is to pay from then on. Who has no employer names the region where they live
or work, and the treasury that serves it counts.

A unit that the policy leaves to people (central, provincial; two affiliations that disagree) is not accepted with the
reason `manual-decision`, and told to turn to the talent office: the platform must not decide who pays. Such a unit's
certification or service alone needs no such decision, as long as its treasury is known.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from typing import NamedTuple

from libs.common.calendar import CALENDAR
from libs.common.dated import Dated, changes
from libs.common.errors import DomainError
from libs.common.field_errors import OURS
from libs.common.identity import read_resident_number
from libs.common.policy import (
    Decision,
    Facts,
    ManualDecision,
    NoRuleInForce,
    Pack,
    affiliated_treasury,
    decide,
    platform_of,
    treasury_of_region,
)
from libs.common.policy.model import (
    AtMostOne,
    BenefitForm,
    Changed,
    CorrectionTerms,
    Item,
    ItemKind,
    ManualDecisionRule,
)
from libs.common.treasuries import Affiliation
from services.intake.filing import FiledAuthority, FiledMaterial, FiledPerson, Filing, FilingWrong, wrong_field

_BY_HAND = "manual"
"""In the place of a treasury, where people must decide."""

PAYEE_ACCOUNT = "payee_account"
"""The material that the account stated in the filing itself fulfils: what is known is not asked for twice."""


class State(StrEnum):
    """Intake's part of the case states (TERMS)."""

    RECEIVED = "received"
    CORRECTION = "correction"
    ACCEPTED = "accepted"
    NOT_ACCEPTED = "not_accepted"
    TRANSFERRED = "transferred"
    WITHDRAWN = "withdrawn"
    LAPSED = "lapsed"


TITLES = {
    "received": "已收件",
    "correction": "待补正",
    "accepted": "已受理",
    "not_accepted": "不予受理",
    "transferred": "已转办",
    "in_progress": "办理中",
    "suspended": "特别程序",
    "refused": "不予认定",
    "withdrawn": "已撤回",
    "lapsed": "逾期终止",
    "closed": "已办结",
}
"""Every case state that an applicant may see, with its Chinese word."""

TRANSITIONS: Mapping[tuple[State, str], State] = {
    (State.RECEIVED, "accept"): State.ACCEPTED,
    (State.RECEIVED, "request_correction"): State.CORRECTION,
    (State.RECEIVED, "not_accept"): State.NOT_ACCEPTED,
    (State.RECEIVED, "transfer"): State.TRANSFERRED,
    (State.CORRECTION, "accept"): State.ACCEPTED,
    (State.CORRECTION, "request_correction"): State.CORRECTION,
    (State.CORRECTION, "not_accept"): State.NOT_ACCEPTED,
    (State.CORRECTION, "transfer"): State.TRANSFERRED,
    (State.CORRECTION, "withdraw"): State.WITHDRAWN,
    (State.CORRECTION, "lapse"): State.LAPSED,
    # Workflow alone decides whether a withdrawal after acceptance still counts, so intake's own state stays.
    (State.ACCEPTED, "withdraw"): State.ACCEPTED,
}


class NotPossibleNow(DomainError):
    """409: the application's state does not allow it."""

    status, code, title = 409, "not-possible-now", "当前状态不能办理此操作"
    detail = "该申请目前为“{state}”，不能办理此操作。请查看办理进度；如需继续申请，请重新提交。"


def move(state: State, command: str) -> State:
    """The state after a command. Raises NotPossibleNow."""
    try:
        return TRANSITIONS[state, command]
    except KeyError:
        raise NotPossibleNow(state=TITLES[state]) from None


REASONS = {
    "duplicate": "同一受益人（按家庭申领的，其本人或者配偶）的同一事项已在办理或者已经享受，不重复受理",
    "at-most-one": "受益人（按家庭申领的，其本人或者配偶）已申请或者已享受另一项待遇，与所申请的事项只能享受其一",
    "not-covered": "受益人的情况按政策不符合所申请的事项",
    "manual-decision": "须由人才办会同财政局人工决定，请联系人才办",
    "lapsed": "逾期未补正，申请终止",
}
"""Every reason for not accepting, with what applicants read."""

REASON_ADVICE = {
    "duplicate": "请查看已有办件的进度和结果，无需再次提交；配偶填报有误，或者被他人误填为配偶的，请联系受理平台核实",
    "at-most-one": "请查看已有办件；要改为享受此项的，在已有办件撤回或者未获批准后重新申请",
    "not-covered": "请查看对照政策的逐条说明，改报可享受的事项，或者在情况改变后重新申请",
    "manual-decision": "请携带单位性质和隶属关系的依据与人才办联系",
    "lapsed": "备齐所缺事项后可重新申请",
}
"""What an applicant can do after each of them."""


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing incomplete or not in order: what, what to do, where (JSON pointer), for which item or material."""

    code: str
    title: str
    detail: str
    field: str
    item: str | None = None
    material: str | None = None


DEFECTS: Mapping[str, tuple[str, str]] = {
    "region-missing": ("缺少所在地区", "没有用人单位的，请填写受益人所在县（市、区）的地区代码。"),
    "affiliation-missing": (
        "缺少有效的隶属关系",
        "请填写用人单位当前有效的财政（或行政、税务、登记）隶属关系及依据。",
    ),
    "affiliation-differs": (
        "隶属关系与登记的不一致",
        "请核对；登记的仍有效的可不填。确有变更的，请持依据到新隶属地的窗口办理；多次变更的，先到现隶属地，只填现在的。",
    ),
    "employer-missing": ("缺少用人单位信息", "由用人单位申请的，请填写用人单位信息。"),
    "employer-not-active": ("用人单位不在正常状态", "请核对用人单位状态，或者更换为承继其权利义务的单位。"),
    "name-differs": ("姓名与该证件登记的姓名不一致", "请核对姓名和证件号码；姓名已变更的，请持证件到窗口办理。"),
    "documents-of-different-people": (
        "所填证件分属不同人员",
        "请核对各证件是否为同一人所有；确为同一人的，请到窗口办理档案合并。",
    ),
    "document-in-doubt": (
        "证件尚未核验",
        "该证件号码未经核验，不能据以确认身份。请删去此证件，只填已登记的证件，或者持证件原件到窗口办理。",
    ),
    "document-expired": ("证件已过有效期", "请换领后填写新证件的有效期限。"),
    "handler-missing": (
        "缺少经办人",
        "由用人单位申请的，请填写经办人，并提供用人单位授权，写明起止日期；本人申请的，请以本人为申请人。",
    ),
    "authority-missing": (
        "代办没有授权",
        "代他人申请的，请填写经办人，并提供授权委托书或用人单位授权，写明起止日期；本人申请的，申请人应为受益人，填写同一证件。",
    ),
    "authority-not-self": ("经办人并非受益人本人", "经办人不是受益人本人，请提供授权委托书或用人单位授权。"),
    "authority-without-employer": ("单位授权缺少用人单位", "请填写授权的用人单位，或者改为申请人的授权委托书。"),
    "authority-evidence-missing": ("缺少授权依据", "请填写授权委托书或单位授权文件的编号、名称。"),
    "authority-open": ("授权没有起止日期", "请填写授权的起止日期。"),
    "authority-expired": ("授权不在有效期内", "请提供在申请之日有效的授权。"),
    "payee-account-missing": (
        "缺少收款账户",
        "办理“{item_title}”须填写受益人本人的银行账户（户名、开户行、联行号、账号）。",
    ),
    "payee-holder-differs": OURS["payee-holder-differs"],
    "category-missing": ("缺少人才类别", "请填写申请认定的人才类别。"),
    "certification-missing": ("尚未认定", "请同时申请人才认定，或者填写已有的认定编号，方可办理“{item_title}”。"),
    "certification-unknown": (
        "没有查到受益人的此项认定",
        "请核对认定编号和受益人证件。刚刚认定的，请待办理进度显示认定编号后再次提交补正。",
    ),
    "certification-expired": ("所依据的认定已失效", "该认定有效期至 {valid_to}，请同时申请人才认定。"),
    "at-most-one": (
        "“{item_title}”与“{other_title}”只能享受其一",
        "按照{rule_title}（{source}），请在两项中保留一项，删去另一项后提交补正。",
    ),
    "material-missing": (
        "缺少材料：{material_title}",
        "办理“{item_title}”须提供{material_title}：提交电子证照、上传文件，或者承诺补交日期。",
    ),
    "licence-number-missing": ("缺少电子证照编号：{material_title}", "请填写电子证照编号。"),
    "material-not-uploaded": (
        "材料尚未上传：{material_title}",
        "请通过材料接口上传文件（PDF、JPEG 或 PNG，不超过 20 MiB）；上传齐全后自动重新审查。",
    ),
    "promise-out-of-term": (
        "承诺补交日期不符：{material_title}",
        "容缺受理须承诺补交日期，不早于今天、不晚于 {last}。",
    ),
}
"""Every code of a defect, with its title and what to do; `{…}` is filled in."""


class Certified(NamedTuple):
    """A certification that the beneficiary has: its category, and its last day."""

    category: str
    valid_to: date


@dataclass(frozen=True, slots=True)
class Known:
    """What intake knows beside the filing.

    `affiliations` are those on record, `window` is the treasury at whose window a clerk saw the papers, `uploaded` the
    codes of materials whose bytes are here, `certifications` those of the beneficiary that the filing names, by number,
    `misnamed` are the places of people who are on record under another name, `mixed` those whose documents are on
    record as of different people, `listed` is what the directories say of the employer on the day.
    """

    affiliations: Sequence[Affiliation] = ()
    window: str | None = None
    uploaded: Collection[str] = ()
    certifications: Mapping[str, Certified] = field(default_factory=dict)
    misnamed: Collection[str] = ()
    mixed: Collection[str] = ()
    doubtful: Collection[str] = ()
    listed: Facts = field(default_factory=dict)
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say: where it belongs, and all defects or the reason not to accept it. `treasury` and `platform`
    are None where they cannot be known yet. `unsure`: it is in doubt who asks, or for whom. `decisions`: what the
    policy says of each item, None where no category is known."""

    treasury: str | None
    platform: str | None
    defects: tuple[Defect, ...]
    reason: str | None = None
    unsure: bool = False
    decisions: tuple[Decision | None, ...] = ()


MAY_FILE: Mapping[str, frozenset[str]] = {
    "talent": frozenset({"/applicant/person", "/handler/person"}),
    "handler": frozenset({"/handler/person"}),
}
"""Where a filing names the person whose own token it comes with, by role. Of others nothing is asked: a portal has
authenticated its user, and a clerk sees who is there."""

MAY_CORRECT: Mapping[str, frozenset[str]] = {**MAY_FILE, "talent": MAY_FILE["talent"] | {"/beneficiary"}}
"""The same of a correction: the talent for whom somebody else filed may put it right."""


def check_filer(role: str, places: Collection[str], entitled: Mapping[str, Collection[str]]) -> None:
    """Whether somebody with a token of this role may send in what names them at these places. Raises FilingWrong."""
    if role in entitled and not set(entitled[role]) & set(places):
        where = "/handler" if role == "handler" else "/applicant"
        raise FilingWrong(errors=[wrong_field(where, "filer-not-named")])


def examine(pack: Pack, filing: Filing, known: Known, on: date) -> Verdict:
    """Judge a filing whose values are right, under a policy, on a day of Asia/Shanghai: all defects at once."""
    items = [pack.item(filed.code, on) for filed in filing.items]
    treasury, defects, manual = _place(pack, filing, known, on)
    platform = platform_of(pack, treasury, on).code if treasury else None
    decided = decisions_on(pack, filing, items, known, on)
    if manual or _left_to_people(pack, filing, items, on):
        return Verdict(treasury, platform, (), "manual-decision", decisions=decided)
    if any(one is not None and one.says_no for one in decided):
        return Verdict(treasury, platform, (), "not-covered", decisions=decided)
    authority = list(_authority_defects(filing, on))
    found = [
        *defects,
        *_party_defects(filing, known, on),
        *authority,
        *_account_defects(pack, filing, items, on),
        *_item_defects(filing, items, known, on),
        *_choice_defects(pack, items, on),
        *_material_defects(pack, filing, items, known, on),
    ]
    unsure = known.unsure or bool(authority)
    return Verdict(treasury, platform, tuple(found), unsure=unsure, decisions=decided)


def decisions_on(
    pack: Pack, filing: Filing, items: Sequence[Item], known: Known, on: date
) -> tuple[Decision | None, ...]:
    """What the policy says of each item, by what the filing states and shows and the directories say; what a department
    has to find out is not known here. None where the category is not known."""
    shown = {name: value for name, value in _shown_facts(filing, on).items() if name in pack.facts_by_name}
    facts = {**filing.facts, **shown, **known.listed}
    return tuple(
        decide(pack, item=item.code, category=category, facts=facts, on=on) if category else None
        for item, category in zip(items, categories(filing, items, known), strict=True)
    )


def _shown_facts(filing: Filing, on: date) -> Facts:
    """The facts that the platform itself sees in a filing (`PLATFORM_FACTS`)."""
    facts: dict[str, bool | int | str] = {}
    if filing.employer is not None:
        facts["employer.kind"] = filing.employer.kind.value
    if (birth := _birth_date(filing.beneficiary)) is not None:
        facts["person.age"] = on.year - birth.year - ((on.month, on.day) < (birth.month, birth.day))
    return facts


def _birth_date(person: FiledPerson) -> date | None:
    for document in person.documents:
        with suppress(ValueError):  # the number of a passport states no birth date
            return read_resident_number(document.number).birth
    return person.birth_date


def categories(filing: Filing, items: Sequence[Item], known: Known) -> list[str | None]:
    """The category of each item: as filed for a certification, for a benefit that of the certification it relies on."""
    pairs = list(zip(filing.items, items, strict=True))
    together = next((filed.category for filed, item in pairs if item.kind is ItemKind.CERTIFICATION), None)
    found: list[str | None] = []
    for filed, item in pairs:
        if item.kind is not ItemKind.BENEFIT:
            found.append(filed.category)
        elif filed.certification is None:
            found.append(together)
        else:  # the category that a benefit itself names proves nothing
            earlier = known.certifications.get(filed.certification)
            found.append(earlier.category if earlier else None)
    return found


def promises(filing: Filing, items: Iterable[Item], uploaded: Collection[str]) -> dict[str, date]:
    """What an acceptance lets come later (容缺受理): the promised materials that the items ask for, each with its last
    day. What nobody asks for is owed by nobody."""
    asked = {needed.code for item in items for needed in item.materials} - {PAYEE_ACCOUNT, *uploaded}
    counts = {material.code: material for material in filing.materials if material.code in asked}
    return {code: it.by for code, it in counts.items() if it.evidence == "promised" and it.by is not None}


def answer_by(pack: Pack, on: date) -> date:
    """The last day to answer a correction requested on a day."""
    return CALENDAR.add_working_days(on, pack.rule(CorrectionTerms, on=on).correct_within_working_days)


# -- where it belongs


def _place(pack: Pack, filing: Filing, known: Known, on: date) -> tuple[str | None, list[Defect], bool]:
    """The affiliated treasury, the defects of knowing it, and whether people must decide."""
    if filing.employer is None:
        if filing.region is not None:
            return treasury_of_region(pack, filing.region, on).code, [], False
        return None, [_REGION_MISSING], False
    given = [
        Affiliation(kind=it.kind, treasury=it.treasury, valid_from=it.valid_from or date.min, valid_to=it.valid_to)
        for it in filing.employer.affiliations
    ]
    treasury = _treasury_on(pack, given or known.affiliations, on)
    if treasury == _BY_HAND:
        return None, [], True
    if treasury is None:
        return None, [_AFFILIATION_MISSING], False
    if _moved_to(pack, known.affiliations, given, on) <= {known.window}:
        return treasury, [], False
    on_record = _treasury_on(pack, known.affiliations, on)
    return (treasury if on_record in {None, _BY_HAND} else on_record), [_AFFILIATION_DIFFERS], False


def _treasury_on(pack: Pack, affiliations: Sequence[Affiliation], day: date) -> str | None:
    try:
        return affiliated_treasury(pack, affiliations, day).code
    except ManualDecision:
        return _BY_HAND
    except NoRuleInForce:
        return None


def _standing_on(pack: Pack, affiliations: Sequence[Affiliation], day: date) -> str | None:
    """Where affiliations put an employer on a day, and where they last did on a day of which they say nothing: one that
    has left is nobody's to take."""
    if (here := _treasury_on(pack, affiliations, day)) is not None:
        return here
    changed = sorted((it for it in changes([*affiliations, *_deciding(pack)]) if date.min < it <= day), reverse=True)
    days = (it - timedelta(days=1) for it in changed)  # what ended last may have decided nothing
    return next(filter(None, (_treasury_on(pack, affiliations, each) for each in days)), None)


def _deciding(pack: Pack) -> list[Dated]:
    """What a policy holds by which affiliations put an employer somewhere."""
    return [*pack.affiliation_order, *pack.manual_decisions, *pack.treasuries]


def _moved_to(pack: Pack, on_record: Sequence[Affiliation], given: Sequence[Affiliation], on: date) -> set[str | None]:
    """Where affiliations as given would put an employer from a day on, or since the record ended, otherwise than those
    on record do."""
    days = {on} | changes([*on_record, *given, *_deciding(pack)])
    last = max((it.valid_to or date.max for it in on_record), default=date.max)
    since = on if last >= on else last + timedelta(days=1)
    moves = {(_standing_on(pack, on_record, day), _treasury_on(pack, given, day)) for day in days if day >= since}
    return {new for old, new in moves if None not in {old, new} and old != new}


def _left_to_people(pack: Pack, filing: Filing, items: Iterable[Item], on: date) -> bool:
    if filing.employer is None or pack.find_rule(ManualDecisionRule, filing.employer.kind, on=on) is None:
        return False
    return any(_pays(pack, item, on) for item in items)


def _pays(pack: Pack, item: Item, on: date) -> bool:
    return item.kind is ItemKind.BENEFIT and pack.benefit(item.code, on).form is BenefitForm.MONEY


# -- what is incomplete or not in order


def _defect(code: str, field: str, item: str | None = None, material: str | None = None, **words: object) -> Defect:
    title, detail = (text.format_map(words) for text in DEFECTS[code])
    return Defect(code, title, detail, field, item, material)


_REGION_MISSING = _defect("region-missing", "/region")
_AFFILIATION_MISSING = _defect("affiliation-missing", "/employer/affiliations")
_AFFILIATION_DIFFERS = _defect("affiliation-differs", "/employer/affiliations")


def _party_defects(filing: Filing, known: Known, on: date) -> Iterable[Defect]:
    if filing.applicant.kind == "employer" and filing.employer is None:
        yield _defect("employer-missing", "/employer")
    if filing.employer is not None and filing.employer.status != "active":
        yield _defect("employer-not-active", "/employer/status")
    for place in known.misnamed:
        yield _defect("name-differs", f"{place}/name")
    for place in known.mixed:
        yield _defect("documents-of-different-people", f"{place}/documents")
    for place in known.doubtful:
        yield _defect("document-in-doubt", f"{place}/number")
    for place, person in filing.parties().items():
        for index, document in enumerate(person.documents):
            if document.valid_to is not None and document.valid_to < on:
                yield _defect("document-expired", f"{place}/documents/{index}")


def _authority_defects(filing: Filing, on: date) -> Iterable[Defect]:
    handler = filing.handler
    if handler is None:
        if filing.applicant.kind == "employer":
            yield _defect("handler-missing", "/handler")
        elif not _applies_for_themselves(filing):
            yield _defect("authority-missing", "/handler")
    elif handler.authority is None:
        yield _defect("authority-missing", "/handler/authority")
    elif handler.authority.kind != "self":
        yield from _stated_authority_defects(filing, handler.authority, on)
    elif not (_applies_for_themselves(filing) and _same(handler.person, filing.beneficiary)):
        yield _defect("authority-not-self", "/handler/authority")


def _stated_authority_defects(filing: Filing, authority: FiledAuthority, on: date) -> Iterable[Defect]:
    where = "/handler/authority"
    if authority.kind == "employer_mandate" and filing.employer is None:
        yield _defect("authority-without-employer", where)
    if authority.evidence is None:
        yield _defect("authority-evidence-missing", f"{where}/evidence")
    if authority.valid_to is None or authority.valid_from is None:
        yield _defect("authority-open", where)
    elif not authority.valid_from <= on <= authority.valid_to:
        yield _defect("authority-expired", f"{where}/to")


def _applies_for_themselves(filing: Filing) -> bool:
    applicant = filing.applicant
    return applicant.kind == "person" and _same(applicant.person or filing.beneficiary, filing.beneficiary)


def _same(one: FiledPerson, other: FiledPerson) -> bool:
    numbers = {(document.type, document.number) for document in one.documents}
    return any((document.type, document.number) in numbers for document in other.documents)


def _account_defects(pack: Pack, filing: Filing, items: Sequence[Item], on: date) -> Iterable[Defect]:
    account = filing.payee_account
    if account is None:
        for item in items:
            asked = any(material.code == PAYEE_ACCOUNT for material in item.materials)
            if asked or _pays(pack, item, on) or item.changes is Changed.PAYEE_ACCOUNT:
                yield _defect("payee-account-missing", "/payee_account", item.code, item_title=item.title)
    elif account.holder != filing.beneficiary.name:
        yield _defect("payee-holder-differs", "/payee_account/holder")


def _item_defects(filing: Filing, items: Sequence[Item], known: Known, on: date) -> Iterable[Defect]:
    certified = any(item.kind is ItemKind.CERTIFICATION for item in items)
    for index, (filed, item) in enumerate(zip(filing.items, items, strict=True)):
        where = f"/items/{index}"
        if item.kind is ItemKind.CERTIFICATION and filed.category is None:
            yield _defect("category-missing", f"{where}/category", item.code)
        if item.kind is ItemKind.BENEFIT and not certified and filed.certification is None:
            yield _defect("certification-missing", f"{where}/certification", item.code, item_title=item.title)
        if filed.certification is not None:
            relied_on = known.certifications.get(filed.certification)
            if relied_on is None:
                yield _defect("certification-unknown", f"{where}/certification", item.code)
            elif relied_on.valid_to < on:
                last = relied_on.valid_to
                yield _defect("certification-expired", f"{where}/certification", item.code, valid_to=last)


def _choice_defects(pack: Pack, items: Sequence[Item], on: date) -> Iterable[Defect]:
    """The items that cannot be had beside one that the filing names before them."""
    first: dict[str, Item] = {}
    for index, item in enumerate(items):
        rule = pack.find_rule(AtMostOne, item.code, on=on)
        if rule is not None and (chosen := first.setdefault(rule.id, item)) is not item:
            words = {"item_title": item.title, "other_title": chosen.title, "rule_title": rule.title}
            yield _defect("at-most-one", f"/items/{index}/code", item.code, **words, source=pack.citation(rule))


def _material_defects(pack: Pack, filing: Filing, items: Sequence[Item], known: Known, on: date) -> Iterable[Defect]:
    filed = {material.code: (index, material) for index, material in enumerate(filing.materials)}
    asked: dict[str, tuple[Item, str]] = {}
    for item in items:
        for needed in item.materials:
            asked.setdefault(needed.code, (item, needed.title))
    for code, (item, title) in asked.items():
        if code == PAYEE_ACCOUNT or code in known.uploaded:
            continue
        if code not in filed:
            yield _defect(
                "material-missing", "/materials", item.code, code, item_title=item.title, material_title=title
            )
        else:
            index, material = filed[code]
            yield from _evidence_defects(material, title, f"/materials/{index}", item.code, (on, answer_by(pack, on)))


def _evidence_defects(
    material: FiledMaterial, title: str, where: str, item: str, term: tuple[date, date]
) -> Iterable[Defect]:
    match material.evidence:
        case "electronic_licence":
            if material.reference is None:
                yield _defect("licence-number-missing", where, item, material.code, material_title=title)
        case "upload":
            yield _defect("material-not-uploaded", where, item, material.code, material_title=title)
        case "promised":
            if material.by is None or not term[0] <= material.by <= term[1]:
                yield _defect("promise-out-of-term", where, item, material.code, material_title=title, last=term[1])
