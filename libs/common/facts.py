"""Facts as callers state them, and clauses as people read them: the shapes that several services share."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr

from libs.common.policy import Clause, Pack, Seen, Verdict, fact_faults
from libs.common.policy.model import Fact, FactFrom, FactType

FactName = Annotated[str, Field(max_length=80)]
FactValue = StrictBool | StrictInt | Annotated[StrictStr, Field(max_length=64)]
StatedFacts = Annotated[dict[FactName, FactValue], Field(max_length=100)]
"""What is known, by the names that the policy declares; held against it by `fact_faults`."""


def wrong_facts(stated: Mapping[str, object], pack: Pack) -> Iterator[Mapping[str, Any]]:
    """The facts that the policy does not hold, as defects at `facts` of whatever document stated them."""
    for wrong in fact_faults(pack, stated):
        yield {"type": wrong.code, "loc": ("facts", wrong.name), "msg": wrong.detail}


class FactView(BaseModel):
    """A fact that conditions look at: who states it, and the material that shows it."""

    name: str
    title: str
    type: FactType
    stated_by: FactFrom
    values: dict[str, str] = Field(description="文本型事实可取的值：代码和名称")
    material: str | None
    department: str | None
    directory: str | None = Field(default=None, description="平台据以查明的企业目录的代码")


class SeenView(BaseModel):
    """A fact as a clause saw it; `value` is null where it is not known."""

    name: str
    title: str
    value: bool | int | str | None
    words: str


class ClauseView(BaseModel):
    """One clause that was tried: its source, what was seen, the verdict, and what would have to change or be shown."""

    rule: str
    title: str
    document: str = Field(description="文号")
    article: str | None
    assumption: bool = Field(description="文件未写明，按假定执行，待人才办解释")
    verdict: Verdict
    verdict_title: str
    sentence: str
    seen: list[SeenView]
    missing: list[FactView] = Field(description="尚缺的事实，以及由谁说明、以何材料说明")


def fact_view(fact: Fact) -> FactView:
    """A fact that the policy declares."""
    return FactView(
        name=fact.name,
        title=fact.title,
        type=fact.type,
        stated_by=fact.stated_by,
        values=fact.titles,
        material=fact.material,
        department=fact.department,
        directory=fact.directory,
    )


def clause_view(pack: Pack, clause: Clause) -> ClauseView:
    """A clause as it was tried."""
    rule = clause.rule
    return ClauseView(
        rule=rule.id,
        title=clause.title,
        document=pack.document(rule.document).number,
        article=rule.article,
        assumption=rule.assumption,
        verdict=clause.verdict,
        verdict_title=clause.verdict.words,
        sentence=clause.sentence,
        seen=[_seen(each) for each in clause.seen],
        missing=[fact_view(fact) for fact in clause.missing],
    )


def _seen(seen: Seen) -> SeenView:
    return SeenView(name=seen.fact.name, title=seen.fact.title, value=seen.value, words=seen.words)
