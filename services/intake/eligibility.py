"""What the policy says of a person before anything is filed. Nothing is kept; a decision is shown as it was made."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from libs.common.dated import Day
from libs.common.facts import ClauseView, StatedFacts, clause_view, wrong_facts
from libs.common.money import Amount
from libs.common.policy import (
    Decision,
    Facts,
    Pack,
    PackIdentity,
    PolicyError,
    Screening,
    Verdict,
    decide,
    worth_trying,
)
from services.intake.filing import Code, CreditCode, fault, refusal


class AskedItem(BaseModel):
    """An item, and the category by which it would be asked for; without one every category is tried."""

    model_config = ConfigDict(extra="forbid")

    code: Code
    category: Code | None = None


Employer = Annotated[
    CreditCode | None,
    Field(description="用人单位的统一社会信用代码：据此查明是否列入企业目录；不填的，按 facts 所述"),
]


class EligibilityQuestion(BaseModel):
    """What is known of a person and an employer; no person is named. Without items every certification and benefit is
    tried."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "items": [{"code": "talent_certification", "category": "master"}, {"code": "living_allowance"}],
                    "employer": "91410522MA0000001E",
                    "facts": {"person.degree": "master", "employer.demand_declared": True},
                }
            ]
        },
    )

    on: Annotated[Day | None, Field(description="按某日受理计；不填为今日")] = None
    items: Annotated[list[AskedItem], Field(max_length=20)] = []
    employer: Employer = None
    facts: Annotated[
        StatedFacts,
        Field(description="已知的事实，名称和取值见 GET /intake/v1/policy；不清楚的不填"),
    ] = {}


class Candidate(BaseModel):
    """Somebody to be screened, by a reference of the caller's own: no name, no identity number."""

    model_config = ConfigDict(extra="forbid")

    ref: Annotated[str, Field(pattern=r"^[!-~]{1,100}$")]
    employer: Employer = None
    facts: StatedFacts = {}


class EntitlementView(BaseModel):
    """An item that a person is entitled to, by the category that gives most."""

    item: str
    item_title: str
    category: str
    category_title: str
    amount: Amount | None


class DecisionView(BaseModel):
    """What the policy says of an item for a category, clause by clause."""

    item: str
    item_title: str
    category: str
    category_title: str
    verdict: Verdict
    verdict_title: str
    amount: Amount | None = Field(description="货币化待遇的全额（含用人单位承担部分）")
    clauses: list[ClauseView]


class Eligibility(BaseModel):
    """The answer to a question: every decision that was asked for, under one policy, as of one day."""

    policy: PackIdentity
    on: date
    decisions: list[DecisionView]


class DecidedView(BaseModel):
    """What the policy said of an application when it was last examined: of each item whose category is known."""

    application: UUID
    case_no: str
    policy: PackIdentity
    decisions: list[DecisionView]


def answer(pack: Pack, question: EligibilityQuestion, on: date, *, listed: Facts) -> Eligibility:
    """Decide what was asked, as of a day; what the directories say of the employer (`listed`) counts before what the
    question says of it. Raises FilingWrong where a code, a fact or a value is not the policy's."""
    unknown = (each for n, item in enumerate(question.items) for each in _unknown(pack, item, n, on))
    if wrong := [*wrong_facts(question.facts, pack), *unknown]:
        raise refusal(wrong, question.model_dump())
    facts = {**question.facts, **listed}
    found = _asked(pack, question.items, facts, on) if question.items else Screening(pack, on).decisions(facts)
    return Eligibility(policy=pack.identity, on=on, decisions=[shown(pack, decision) for decision in found])


def check_facts(pack: Pack, facts: Facts) -> None:
    """Raises FilingWrong where a fact or its value is not the policy's."""
    if wrong := list(wrong_facts(facts, pack)):
        raise refusal(wrong, {"facts": facts})


def _unknown(pack: Pack, item: AskedItem, n: int, on: date) -> Iterable[Mapping[str, Any]]:
    try:
        pack.item(item.code, on)
    except PolicyError:
        yield fault("unknown-item", ("items", n, "code"))
    try:
        if item.category is not None:
            pack.category(item.category, on)
    except PolicyError:
        yield fault("unknown-category", ("items", n, "category"))


def _asked(pack: Pack, items: Iterable[AskedItem], facts: Facts, on: date) -> Iterable[Decision]:
    for asked in items:
        tried = [asked.category] if asked.category else worth_trying(pack, item=asked.code, on=on)
        for category in tried:
            yield decide(pack, item=asked.code, category=category, facts=facts, on=on)


def shown(pack: Pack, decision: Decision) -> DecisionView:
    """A decision as people read it."""
    return DecisionView(
        item=decision.item.code,
        item_title=decision.item.title,
        category=decision.category.code,
        category_title=decision.category.title,
        verdict=decision.verdict,
        verdict_title=decision.verdict.words,
        amount=Amount(fen=decision.fen) if decision.fen is not None else None,
        clauses=[clause_view(pack, clause) for clause in decision.clauses],
    )


def decided_anew(pack: Pack, kept: Mapping[str, Any], *, on: date, found: Facts) -> dict[str, Any]:
    """A decision that was kept, made again as of the day of acceptance: by what was seen until now, and what was found
    since. What no clause looks at was not kept, and changes nothing."""
    before = DecisionView.model_validate(kept)
    seen = {each.name: each.value for clause in before.clauses for each in clause.seen if each.value is not None}
    decision = decide(pack, item=before.item, category=before.category, facts={**seen, **found}, on=on)
    return shown(pack, decision).model_dump(mode="json")


def entitlement_view(decision: Decision) -> EntitlementView:
    """An entitlement as people read it."""
    return EntitlementView(
        item=decision.item.code,
        item_title=decision.item.title,
        category=decision.category.code,
        category_title=decision.category.title,
        amount=Amount(fen=decision.fen) if decision.fen is not None else None,
    )
