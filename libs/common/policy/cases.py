"""Cases beside a pack: a person, an employer, a day and what must come out, in the words of the pack's own titles.

They are the policy office's own tests, as OpenFisca's YAML tests are: whoever can read the policy can write one. Each
is decided by the rules that the services use. `tested` says which rules no case passes, or none fails.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from libs.common.dated import Day
from libs.common.money import format_yuan
from libs.common.policy.conditions import Facts, FactValueType
from libs.common.policy.decision import Decision, Seen, Verdict, decide, review
from libs.common.policy.defects import sentence
from libs.common.policy.errors import PackRefused, PolicyError
from libs.common.policy.model import CodedRule, Fact, FactType, Rule
from libs.common.policy.pack import Pack
from libs.common.policy.sharing import split
from libs.common.policy.source import read_source
from libs.common.policy.wording import TITLES
from libs.common.treasuries import EmployerKind

_YES_NO: Mapping[str | int, FactValueType] = {"是": True, "否": False}
_EMPLOYER = "用人单位"

Text = Annotated[str, Field(min_length=1, max_length=200)]


class Case(BaseModel):
    """One case. Amounts are written in yuan with two decimals. A case of a review (发放前复核) asks whether a later
    instalment of a benefit may be ordered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: Text = Field(alias="案例")
    on: Day = Field(alias="日期")
    item: Text = Field(alias="事项")
    category: Text = Field(alias="类别")
    facts: Mapping[Text, Text | int] = Field(default={}, alias="情况")
    review: Literal["是", "否"] = Field(default="否", alias="发放前复核")
    verdict: Literal["符合", "不符合", "尚不能确定"] = Field(alias="结论")
    decided_by: tuple[Text, ...] = Field(default=(), alias="决定条款")
    amount: Text | None = Field(default=None, alias="金额")
    treasury: Text | None = Field(default=None, alias="隶属财政")
    employer_kind: Text = Field(default="企业", alias="单位性质")
    shares: Mapping[Text, Text] = Field(default={}, alias="分担")

    @model_validator(mode="after")
    def _no_money_in_a_review(self) -> Self:
        if self.review == "是" and (self.amount is not None or self.shares):
            raise ValueError("发放前复核的案例只看条件，请删去金额和分担，另写一例。")
        return self


class Run(NamedTuple):
    """A case that was decided: where it stands, what was decided, and in what it came out otherwise than it says."""

    line: int
    case: Case
    decision: Decision | None
    differs: tuple[str, ...]


_CASES = TypeAdapter(tuple[Case, ...])


def run_cases(pack: Pack, raw: bytes, name: str) -> list[Run]:
    """Decide the cases of a file. Raises PackRefused, with every line, where the file cannot be read."""
    source = read_source(raw, name)
    try:
        cases = _CASES.validate_python(source.data)
    except ValidationError as error:
        raise PackRefused(name, [source.defect(each["loc"], sentence(each)) for each in error.errors()]) from error
    return [_run(pack, case, source.lines.get((n,), 0)) for n, case in enumerate(cases)]


def untested(pack: Pack, runs: Iterable[Run]) -> list[tuple[Rule, Verdict]]:
    """The conditions and exclusions that no case passes, or that no case fails, with the verdict that none has."""
    seen = {(clause.rule.id, clause.verdict) for run in runs if run.decision for clause in run.decision.clauses}
    return [
        (rule, verdict)
        for rule in {each.id: each for each in (*pack.conditions, *pack.exclusions)}.values()
        for verdict in (Verdict.PASSED, Verdict.FAILED)
        if (rule.id, verdict) not in seen
    ]


def _run(pack: Pack, case: Case, line: int) -> Run:
    try:
        item = _coded(pack.items, case.item, case.on, "事项")
        category = _coded(pack.categories, case.category, case.on, "类别")
        facts = dict(_fact(pack.facts, title, told) for title, told in case.facts.items())
        if case.review == "是":
            decision = _reviewed(pack, case, item, category, facts)
        else:
            decision = decide(pack, item=item, category=category, facts=facts, on=case.on)
        return Run(line, case, decision, tuple(_differs(pack, case, decision)))
    except (_NotSo, PolicyError) as error:
        return Run(line, case, None, (error.told if isinstance(error, PolicyError) else str(error),))


class _NotSo(Exception):
    """A case names what the pack does not hold."""


def _reviewed(pack: Pack, case: Case, benefit: str, category: str, facts: Facts) -> Decision:
    decision = review(pack, benefit=benefit, category=category, facts=facts, on=case.on)
    if not decision.clauses:
        raise _NotSo(f"{case.on} “{case.item}”没有发放前须复核的条件")
    return decision


def _coded(rules: Sequence[CodedRule], title: str, on: date, what: str) -> str:
    for rule in rules:
        if title in {rule.title, rule.code} and rule.covers(on):
            return rule.code
    raise _NotSo(f"{on} 没有{what}“{title}”")


def _fact(facts: Iterable[Fact], title: str, told: str | int) -> tuple[str, FactValueType]:
    fact = next((fact for fact in facts if title in {fact.title, fact.name}), None)
    if fact is None:
        raise _NotSo(f"没有“{title}”这一情况")
    values: dict[str | int, FactValueType] = {value.title: value.code for value in fact.values}
    if fact.type is FactType.BOOL:
        values = dict(_YES_NO)
    elif fact.type is FactType.INT and isinstance(told, int):
        values = {told: told}
    if told not in values:
        known = "、".join(map(str, values)) or "整数"
        raise _NotSo(f"“{title}”不能是“{told}”，可写：{known}")
    return fact.name, values[told]


def _differs(pack: Pack, case: Case, decision: Decision) -> Iterator[str]:
    if decision.verdict.words != case.verdict:
        because = "；".join(deciding(decision)) or "各条均符合"
        yield f"结论应为“{case.verdict}”，实为“{decision.verdict.words}”：{because}"
    titles = {clause.title for clause in decision.clauses if clause.verdict is decision.verdict}
    for title in case.decided_by:
        if title not in titles:
            yield f"决定条款应有“{title}”，实为：{'、'.join(sorted(titles)) or '无'}"
    if case.amount is not None:
        yield from _other("金额", case.amount, decision.fen)
    if case.shares:
        yield from _shares(pack, case, decision)


def deciding(decision: Decision) -> list[str]:
    """The clauses that decided, each with its sentence and what was seen; none where every clause passes."""
    return [f"{clause.rule.id} {clause.sentence}{_seen(clause.seen)}" for clause in decision.deciding]


def _seen(seen: Sequence[Seen]) -> str:
    return f"（{'，'.join(f'{each.fact.title}：{each.words}' for each in seen)}）" if seen else ""


def _shares(pack: Pack, case: Case, decision: Decision) -> Iterator[str]:
    treasuries = {treasury.title: treasury.code for treasury in pack.treasuries if treasury.covers(case.on)}
    kinds = {TITLES[kind]: kind for kind in EmployerKind}
    if case.treasury not in treasuries:
        raise _NotSo(f"{case.on} 没有一级财政“{case.treasury}”，写分担须写明隶属财政")
    if case.employer_kind not in kinds:
        raise _NotSo(f"没有单位性质“{case.employer_kind}”，可写：{'、'.join(kinds)}")
    if decision.fen is None:
        raise _NotSo(f"“{decision.item.title}”没有金额可以分担")
    found = split(
        pack,
        benefit=decision.item.code,
        treasury=treasuries[case.treasury],
        on=case.on,
        total_fen=decision.fen,
        employer_kind=kinds[case.employer_kind],
    )
    named = {title: found.shares[code] for title, code in treasuries.items() if code in found.shares}
    for who, fen in {_EMPLOYER: found.employer, **named}.items():
        if who in case.shares or fen:
            yield from _other(f"{who}分担", case.shares.get(who, "0.00"), fen)
    for who in case.shares.keys() - {_EMPLOYER, *named}:
        yield f"{who}不分担此项"


def _other(what: str, told: str, fen: int | None) -> Iterator[str]:
    found = format_yuan(fen) if fen is not None else "没有标准"
    if _figures(told) != _figures(found):
        yield f"{what}应为 {told}，实为 {found}"


def _figures(text: str) -> str:
    return text.replace(",", "").replace("元", "").strip()
