"""A policy as people read it, on the command line: a decision clause by clause, the cases, the guides."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from deploy.rules_cli import AsJson, ServedArgument, ServedPack, day_of, load, refuse
from libs.common.calendar import local_date
from libs.common.money import format_yuan
from libs.common.policy import (
    Clause,
    Decision,
    Pack,
    PackRefused,
    PolicyError,
    Verdict,
    decide,
    fact_faults,
    green_channel,
    review,
)
from libs.common.policy.cases import Run, deciding, run_cases, untested
from libs.common.policy.guide import guide
from libs.common.policy.model import Fact, FactFrom, FactType, GreenChannel, Rule
from libs.common.policy.wording import shortened_to, title_in


def explain(
    *,
    item: Annotated[str, typer.Option(metavar="CODE", help="A service item, as talent_certification.")],
    category: Annotated[str, typer.Option(metavar="CODE", help="The category of talent, as master.")],
    on: Annotated[date, typer.Option(parser=day_of, metavar="DATE", help="YYYY-MM-DD: the day of acceptance.")],
    fact: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A fact, as person.degree=master; repeatable. What is left out is "
            "not known, and leaves a clause undetermined.",
        ),
    ] = None,
    of_instalment: Annotated[
        bool,
        typer.Option("--review", help="Of a benefit granted: whether a later instalment may be ordered (发放前复核)."),
    ] = False,
    pack: ServedPack,
    as_json: AsJson = False,
) -> None:
    """Say clause by clause what a policy makes of a person: the value seen, the article, the verdict, and what would
    have to change or be shown, and whether the item goes through the green channel; with --review, of what must still
    hold before a later instalment."""
    loaded = load(pack)
    facts = dict(_fact(loaded, given) for given in fact or ())
    if faults := fact_faults(loaded, facts):
        refuse("\n".join(f"{fault.name}：{fault.detail}" for fault in faults))
    try:
        if of_instalment:
            decision = review(loaded, benefit=item, category=category, facts=facts, on=on)
        else:
            decision = decide(loaded, item=item, category=category, facts=facts, on=on)
    except PolicyError as error:
        refuse(error.told)
    if of_instalment and not decision.clauses:
        refuse(f"{on} 受理的“{decision.item.title}”没有发放前须复核的条件，各期到期自动生成支付令。")
    described = json.dumps(_described(loaded, decision, of_instalment), ensure_ascii=False)
    typer.echo(described if as_json else "\n".join(_for_people(loaded, decision, of_instalment)))


def decide_cases(
    pack: ServedArgument,
    *,
    cases: Annotated[
        Path | None, typer.Option(help="Folder of the cases; the folder `cases` beside the pack if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Decide the cases beside a pack, and say which rule decided.

    Exit 1: a case comes out otherwise than it says, or a condition or exclusion has no case that passes it or none that
    fails it.
    """
    loaded, folder = load(pack), cases or pack.parent / "cases"
    files = sorted(folder.glob("*.yaml"))
    if not files:
        what = "中没有案例" if folder.is_dir() else "不是文件夹"
        refuse(f"{folder} {what}，请检查 --cases；案例按 docs/policy-cases.md 写在 *.yaml 文件中。")
    try:
        runs = {path: run_cases(loaded, path.read_bytes(), str(path)) for path in files}
    except PackRefused as error:
        refuse(str(error))
    found = [run for each in runs.values() for run in each]
    bare, wrong = untested(loaded, found), [run for run in found if run.differs]
    if as_json:
        typer.echo(json.dumps(_tested(loaded, runs, bare), ensure_ascii=False))
    else:
        typer.echo("\n".join(_tested_for_people(loaded, runs, bare)))
    if wrong or bare:
        raise typer.Exit(1)


def write_guide(
    pack: ServedArgument,
    *,
    on: Annotated[
        date | None, typer.Option(parser=day_of, metavar="DATE", help="YYYY-MM-DD; today if left out.")
    ] = None,
    page: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a web page (.html).")] = None,
    document: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Word document (.docx).")] = None,
) -> None:
    """Write the service standard (服务规范) and the guide of each item (办事指南) from a policy pack.

    Without FILE it is printed. What rests on an assumption says so.
    """
    from deploy.policy_guide import as_document, as_page, as_text

    try:
        made = guide(load(pack), on or local_date(datetime.now(UTC)))
        if page is not None:
            page.write_text(as_page(made), encoding="utf-8")
        if document is not None:
            document.write_bytes(as_document(made))
    except PolicyError as error:
        refuse(error.told)
    except OSError as error:
        refuse(f"{error.filename} 无法写入，请检查路径和权限（{error.strerror}）。")
    if page is None and document is None:
        typer.echo(as_text(made))


def _fact(pack: Pack, given: str) -> tuple[str, bool | int | str]:
    name, equals, value = given.partition("=")
    if not equals:
        raise typer.BadParameter(f"“{given}”应写成 NAME=VALUE，如 person.degree=master。")
    fact = pack.facts_by_name.get(name)
    return name, _value(fact, value) if fact else value


def _value(fact: Fact, text: str) -> bool | int | str:
    if fact.type is FactType.BOOL:
        return {"true": True, "false": False}.get(text, text)
    if fact.type is FactType.INT and text.lstrip("-").isdecimal() and len(text) < 20:
        return int(text)
    return text


def _described(pack: Pack, decision: Decision, of_instalment: bool) -> dict[str, object]:
    return {
        "policy": pack.identity.model_dump(),
        "item": decision.item.code,
        "category": decision.category.code,
        "on": decision.on.isoformat(),
        "review": of_instalment,
        "verdict": decision.verdict,
        "fen": decision.fen,
        "clauses": [
            {
                "rule": clause.rule.id,
                "title": clause.title,
                "source": pack.citation(clause.rule),
                "assumption": clause.rule.assumption,
                "verdict": clause.verdict,
                "sentence": clause.sentence,
                "seen": {each.fact.name: each.value for each in clause.seen},
                "missing": [fact.name for fact in clause.missing],
            }
            for clause in decision.clauses
        ],
        "green_channel": _described_channel(pack, None if of_instalment else _channel(pack, decision)),
    }


def _channel(pack: Pack, decision: Decision) -> GreenChannel | None:
    return green_channel(pack, item=decision.item.code, category=decision.category.code, on=decision.on)


def _described_channel(pack: Pack, rule: GreenChannel | None) -> dict[str, object] | None:
    if rule is None:
        return None
    return {
        "rule": rule.id,
        "limit_working_days": rule.limit_working_days,
        "source": pack.citation(rule),
        "assumption": rule.assumption,
    }


def _for_people(pack: Pack, decision: Decision, of_instalment: bool) -> Iterator[str]:
    amount = f"，{format_yuan(decision.fen)}" if decision.fen is not None else ""
    asked = f"{decision.item.title}（{decision.category.title}{amount}）"
    which = "，后续各期发放前复核" if of_instalment else ""
    yield f"{asked}，{decision.on} 受理{which}：{decision.verdict.words}"
    for n, clause in enumerate(decision.clauses, 1):
        yield f"{n}. {clause.title}：{clause.verdict.words}"
        yield f"   {clause.sentence}"
        yield from (f"   {each.fact.title}：{each.words}" for each in clause.seen)
        yield from _still_missing(pack, clause)
        yield f"   依据：{pack.citation(clause.rule)} {clause.rule.id}{_assumed(clause.rule)}"
    if not of_instalment and (rule := _channel(pack, decision)):
        yield f"绿色通道：优先办理，各部门时限{shortened_to(rule)}"
        yield f"   依据：{pack.citation(rule)} {rule.id}{_assumed(rule)}"
    yield f"政策包：{pack.identity}"


def _still_missing(pack: Pack, clause: Clause) -> Iterator[str]:
    materials = {material.code: material.title for item in pack.items for material in item.materials}
    for fact in clause.missing:
        shown = f"，材料：{materials[fact.material]}" if fact.material else ""
        yield f"   尚缺：{fact.title}（由{_who_states(pack, fact)}说明{shown}）"


def _who_states(pack: Pack, fact: Fact) -> str:
    if fact.directory is not None:
        return f"平台按{title_in(pack.directories, fact.directory)}"
    if fact.department is not None:
        return title_in(pack.departments, fact.department)
    return "平台" if fact.stated_by is FactFrom.PLATFORM else "申请人"


def _assumed(rule: Rule) -> str:
    return f"（假定：{rule.note}）" if rule.assumption else ""


def _tested(pack: Pack, runs: Mapping[Path, Sequence[Run]], bare: Sequence[tuple[Rule, Verdict]]) -> dict[str, object]:
    return {
        "policy": pack.identity.model_dump(),
        "cases": [
            {
                "file": str(path),
                "line": run.line,
                "title": run.case.title,
                "verdict": run.decision.verdict if run.decision else None,
                "decided_by": deciding(run.decision) if run.decision else [],
                "differs": run.differs,
            }
            for path, each in runs.items()
            for run in each
        ],
        "untested": [{"rule": rule.id, "verdict": verdict} for rule, verdict in bare],
    }


def _tested_for_people(
    pack: Pack, runs: Mapping[Path, Sequence[Run]], bare: Sequence[tuple[Rule, Verdict]]
) -> Iterator[str]:
    for path, each in runs.items():
        yield f"{path}：{len(each)} 例，{sum(bool(run.differs) for run in each)} 例不对"
        for run in each:
            yield from _run_for_people(run)
    for rule, verdict in bare:
        yield f"{rule.id}：没有一例“{verdict.words}”，请补一例"
    yield f"政策包：{pack.identity}"


def _run_for_people(run: Run) -> Iterator[str]:
    mark = "✗" if run.differs else "✓"
    yield f"  {mark} 第 {run.line} 行 {run.case.title}：{run.case.verdict}"
    if run.differs:
        yield from (f"      {differs}" for differs in run.differs)
    elif run.decision:
        yield from (f"      {rule}" for rule in deciding(run.decision))
