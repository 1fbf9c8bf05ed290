"""Rules on the command line: whether a pack is sound and what it assumes, who bears what of a benefit, and when a term
ends. Nothing is stored or started."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypedDict

import typer

from deploy.served import served_file
from libs.common.calendar import CALENDAR, MAX_DAYS, Deadline, Suspension
from libs.common.money import MAX_FEN, format_yuan
from libs.common.policy import (
    Defect,
    Difference,
    Pack,
    PackRefused,
    PolicyError,
    VersionBy,
    describe_split,
    differences,
    load_pack,
)
from libs.common.policy.model import Rule
from libs.common.policy.sharing import RuleDescription, SplitDescription
from libs.common.treasuries import EmployerKind

_SERVED: dict[str, Any] = {
    "default_factory": served_file,
    "show_default": "the one that is served, HUANQUAN_POLICIES",
    "help": "File of the policy pack.",
}
ServedPack = Annotated[Path, typer.Option(**_SERVED)]
ServedArgument = Annotated[Path, typer.Argument(metavar="PACK", **_SERVED)]
policy = typer.Typer(help="Ask a policy pack what its rules give. Nothing is stored or started.", no_args_is_help=True)


def day_of(text: str) -> date:
    """A date written YYYY-MM-DD and not otherwise. Raises BadParameter."""
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            raise ValueError(text)
        return date.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"“{text}”不是日期，请按 YYYY-MM-DD 填写，如 2026-02-13。") from error


def suspension_of(text: str) -> Suspension:
    """A stretch without the clock, written FROM/TO. Raises BadParameter."""
    start, slash, end = text.partition("/")
    if not slash:
        raise typer.BadParameter(f"“{text}”不是起止日期，请写成 FROM/TO，如 2026-02-10/2026-02-14。")
    first, again = day_of(start), day_of(end)
    if first > again:
        raise typer.BadParameter(f"“{text}”的停止计时首日 {first} 晚于恢复计时之日 {again}，请改正先后。")
    return Suspension(first, again)


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@policy.command()
def check(
    packs: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Files of policy packs.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Read policy packs as the services do; list what is wrong, or what rests on an assumption.

    Exit 0: sound. Exit 1: refused, with file, line and reason of every defect found. An assumption is what no document
    says: it holds until an interpretation of the talent office confirms or changes it (第十条).
    """
    found = [_checked(path) for path in packs]
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, default=asdict))
    else:
        typer.echo("\n\n".join(_check_for_people(each) for each in found))
    if any(each["defects"] for each in found):
        raise typer.Exit(1)


@policy.command()
def diff(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="File of the pack that holds now.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="File of the pack that is to follow it.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say what a new version of a policy makes otherwise: what, from when, for whom better and for whom worse.

    Rules are compared by what they are about, day by day; the order of the file and the ids of rules do not count.
    """
    packs = load(before), load(after)
    try:
        found = differences(*packs)
    except PolicyError as error:
        refuse(error.told)
    if as_json:
        typer.echo(json.dumps([_difference_as_json(each) for each in found], ensure_ascii=False))
        return
    typer.echo(_told(*packs, found))


def told_differences(before: Pack, after: Pack) -> str:
    """What `policy diff` prints. Raises NotOfOneCity."""
    return _told(before, after, differences(before, after))


def _told(before: Pack, after: Pack, found: Sequence[Difference]) -> str:
    heading = f"{before.identity} → {after.identity}：{f'{len(found)} 处不同' if found else '没有不同'}"
    return "\n".join([heading, *(_difference_for_people(n, each) for n, each in enumerate(found, 1))])


@policy.command()
def split(
    *,
    benefit: Annotated[str, typer.Option(metavar="CODE", help="A money benefit: as living_allowance in Anyang.")],
    treasury: Annotated[
        str, typer.Option(metavar="CODE", help="The employer's affiliated treasury, as 410522 (six digits).")
    ],
    on: Annotated[
        date, typer.Option(parser=day_of, metavar="DATE", help="YYYY-MM-DD: the day that picks versions of the rules.")
    ],
    fen: Annotated[
        int, typer.Option(min=1, max=MAX_FEN, help="The whole benefit in fen (1/100 yuan), the employer's part too.")
    ],
    employer_kind: Annotated[
        EmployerKind, typer.Option(help="Kind of employer; only an enterprise has a share of its own (assumption).")
    ] = EmployerKind.ENTERPRISE,
    pack: ServedPack,
    as_json: AsJson = False,
) -> None:
    """Show who bears what of a benefit: the employer and each treasury (第五条).

    A central or provincial unit bears no share by rule: exit 2, 须人工决定.
    """
    loaded = load(pack)
    try:
        described = describe_split(
            loaded,
            benefit=benefit,
            treasury=treasury,
            on=on,
            total_fen=fen,
            employer_kind=employer_kind,
        )
    except PolicyError as error:
        refuse(error.told)
    typer.echo(json.dumps(described, ensure_ascii=False) if as_json else _split_for_people(loaded, described))


def due_date(
    *,
    accepted: Annotated[
        date,
        typer.Option(parser=day_of, metavar="DATE", help="YYYY-MM-DD: the day of acceptance, which does not count."),
    ],
    days: Annotated[int, typer.Option(min=1, max=MAX_DAYS, help="The term in working days.")],
    suspended: Annotated[
        list[Suspension] | None,
        typer.Option(
            parser=suspension_of,
            metavar="FROM/TO",
            help="A stretch without the clock: its first day, and the day it runs again (YYYY-MM-DD/YYYY-MM-DD). "
            "Repeatable; where stretches overlap, a day is taken away once.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the last day of a term in working days (Asia/Shanghai), with its working day by day."""
    try:
        deadline = CALENDAR.due_date(accepted, days, suspended or ())
    except ValueError as error:
        refuse(str(error))
    typer.echo(json.dumps(_described(deadline), ensure_ascii=False) if as_json else _deadline_for_people(deadline))


class Assumed(TypedDict):
    """What rests on an assumption: a rule, treasury, region or department, and the document that is silent about it."""

    id: str
    document: str
    number: str
    article: str | None
    note: str


class Overriding(TypedDict):
    """A rule that overrides another of an older or broader document, and where each of them stands."""

    id: str
    source: str
    overrides: str
    overridden_source: str
    since: str


class Checked(TypedDict):
    """What became of one file. Without defects: `cited` is how many records of the pack name their source,
    `assumptions` stand by document and article, `overridings` in the order of the file."""

    file: str
    defects: Sequence[Defect]
    policy: dict[str, str] | None
    title: str
    cited: int
    assumptions: list[Assumed]
    overridings: list[Overriding]


def _checked(path: Path) -> Checked:
    try:
        pack = load_pack(path)
    except PackRefused as error:
        return _refused(path, error.defects)
    except OSError as error:
        return _refused(path, [Defect(0, "", _unreadable(error))])
    cited, numbers = dict(pack.cited()), {document.id: document.number for document in pack.documents}
    places = [(document.id, article) for document in pack.documents for article in (*document.articles, None)]
    assumed = [(name, each) for name, each in cited.items() if each.assumption]
    assumptions = [
        Assumed(id=name, document=each.document, number=numbers[each.document], article=each.article, note=each.note)
        for name, each in sorted(assumed, key=lambda named: places.index((named[1].document, named[1].article)))
    ]
    return Checked(
        file=str(path),
        defects=[],
        policy=pack.identity.model_dump(),
        title=pack.title,
        cited=len(cited),
        assumptions=assumptions,
        overridings=[_overriding(pack, over, under) for over, under in pack.overridings],
    )


def _refused(path: Path, defects: Sequence[Defect]) -> Checked:
    return Checked(file=str(path), defects=defects, policy=None, title="", cited=0, assumptions=[], overridings=[])


def _unreadable(error: OSError) -> str:
    return f"无法读取，请检查路径和权限（{error.strerror}）。"


def _overriding(pack: Pack, over: Rule, under: Rule) -> Overriding:
    return Overriding(
        id=over.id,
        source=pack.citation(over),
        overrides=under.id,
        overridden_source=pack.citation(under),
        since=max(over.valid_from, under.valid_from).isoformat(),
    )


def _check_for_people(checked: Checked) -> str:
    if checked["policy"] is None:
        defects = checked["defects"]
        return "\n".join([f"{checked['file']}：未通过，共 {len(defects)} 处", *(f"  {defect}" for defect in defects)])
    policy, assumptions = checked["policy"], checked["assumptions"]
    lines = [
        f"{checked['file']}：通过",
        f"政策包：{policy['city']}/{policy['version']} {checked['title']}",
        f"标识：{policy['sha256']}",
        f"有出处的条目 {checked['cited']} 个，其中假定 {len(assumptions)} 个，待人才办解释：",
    ]
    for source, assumed in groupby(assumptions, key=lambda each: f"{each['number']}{each['article'] or ''}"):
        lines += [f"  {source}", *(f"    {each['id']}：{each['note']}" for each in assumed)]
    for over in checked["overridings"]:
        under = f"{over['overrides']}（{over['overridden_source']}）"
        lines.append(f"{over['id']}（{over['source']}）自 {over['since']} 起取代 {under}")
    return "\n".join(lines)


def _difference_as_json(each: Difference) -> dict[str, object]:
    return {
        "kind": each.kind,
        "about": each.about,
        "since": each.since.isoformat(),
        "until": each.until.isoformat() if each.until else None,
        "version_by": each.version_by,
        "was": each.was,
        "becomes": each.becomes,
        "gains": each.effect.gains,
        "loses": each.effect.loses,
        "source": each.source,
    }


def _difference_for_people(number: int, each: Difference) -> str:
    about = "；".join(subject for subject in each.about if subject)
    days = f"{each.since} 至 {each.until}" if each.until else f"{each.since} 起"
    lines = [
        f"\n{number}. {each.kind}{f'：{about}' if about else ''}",
        f"   {days}{_APPLIES[each.version_by]}",
        *(_turned(name, each.was.get(name), each.becomes.get(name)) for name in {**each.was, **each.becomes}),
    ]
    if each.effect.gains:
        lines.append(f"   受益：{'、'.join(each.effect.gains)}")
    if each.effect.loses:
        lines.append(f"   受损：{'、'.join(each.effect.loses)}")
    if "依据" not in each.becomes:
        lines.append(f"   依据：{each.source['依据']}，{each.source['性质']}")
    return "\n".join(lines)


_APPLIES: Mapping[VersionBy | None, str] = {
    VersionBy.ACCEPTED_ON: "受理的申请（此前受理的不变）",
    VersionBy.DUE_ON: "应付的各期（不论何时受理）",
    None: "",
}


def _turned(name: str, was: str | None, becomes: str | None) -> str:
    if was is None:
        return f"   {name}：{becomes}"
    return f"   {name}：{was} → {becomes or '不再适用'}"


def load(path: Path) -> Pack:
    """Read a pack; one that cannot be read ends the command."""
    try:
        return load_pack(path)
    except PolicyError as error:
        refuse(error.told)
    except OSError as error:
        refuse(f"{path} {_unreadable(error)}")


def _described(deadline: Deadline) -> dict[str, object]:
    return {
        "due": deadline.due.isoformat() if deadline.due else None,
        "provisional": deadline.provisional,
        "working": [
            {"day": line.day.isoformat(), "counted": line.counted, "reason": line.reason.value}
            for line in deadline.working
        ],
    }


def _deadline_for_people(deadline: Deadline) -> str:
    lines = [f"{line.day} {'+1' if line.counted else '  '} {line.reason.label}" for line in deadline.working]
    label = "（尚无官方日历，暂定）" if deadline.provisional else ""
    return "\n".join([*lines, f"截止日 {deadline.due}{label}"])


def _split_for_people(pack: Pack, described: SplitDescription) -> str:
    titles = {treasury.code: treasury.title for treasury in pack.treasuries}
    shares = [f"  {code} {titles[code]}：{format_yuan(fen)}" for code, fen in described["shares"].items()]
    lines = [
        f"合计：{format_yuan(described['total'])}",
        f"用人单位承担：{format_yuan(described['employer'])}",
        f"财政承担：{format_yuan(described['public'])}",
        *shares,
        f"先行支付：{titles[described['advanced_by']]}",
        "依据：",
        *(_rule_for_people(pack, rule) for rule in described["rules"]),
        f"政策包：{pack.identity}",
    ]
    return "\n".join(lines)


def _rule_for_people(pack: Pack, rule: RuleDescription) -> str:
    number = next(document.number for document in pack.documents if document.id == rule["document"])
    assumed = f"（假定：{rule['note']}）" if rule["assumption"] else ""
    return f"  {number}{rule['article'] or ''} {rule['id']}{assumed}"


def refuse(message: str) -> NoReturn:
    """End the command with exit code 2 and a message."""
    typer.echo(message, err=True)
    raise typer.Exit(2)
