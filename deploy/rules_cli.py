"""Rules on the command line: who bears what of a benefit, and when a term ends. Nothing is stored or started."""

import json
import re
from datetime import date
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from libs.common.calendar import CALENDAR, MAX_DAYS, Deadline, Suspension
from libs.common.money import MAX_FEN, format_yuan
from libs.common.policy import Pack, PolicyError, describe_split, load_pack
from libs.common.policy.sharing import RuleDescription, SplitDescription
from libs.common.treasuries import EmployerKind

ANYANG = Path(__file__).parent / "policies" / "anyang" / "2021-4.yaml"

policy = typer.Typer(help="Ask a policy pack what its rules give. Nothing is stored or started.", no_args_is_help=True)


def day_of(text: str) -> date:
    """A date written YYYY-MM-DD and not otherwise. Raises BadParameter."""
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            raise ValueError("not written like that")
        return date.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no date: write YYYY-MM-DD, as 2026-02-13 ({error})") from error


def suspension_of(text: str) -> Suspension:
    """A stretch without the clock, written FROM/TO. Raises BadParameter."""
    start, slash, end = text.partition("/")
    if not slash:
        raise typer.BadParameter(f"{text!r}: write FROM/TO, as 2026-02-10/2026-02-14")
    first, again = day_of(start), day_of(end)
    if first > again:
        raise typer.BadParameter(
            f"{text}: FROM {first} is after TO {again}; FROM is the first day without the clock, TO the day it runs "
            "again"
        )
    return Suspension(first, again)


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@policy.callback()
def _policy() -> None:
    """Keep `split` a command of its own, beside those to come."""


@policy.command()
def split(
    *,
    benefit: Annotated[
        str, typer.Option(metavar="CODE", help="A money benefit: living_allowance or purchase_subsidy in Anyang.")
    ],
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
    pack: Annotated[Path, typer.Option(help="File of the policy pack.")] = ANYANG,
    as_json: AsJson = False,
) -> None:
    """Show who bears what of a benefit: the employer and each treasury (第五条).

    A central or provincial unit bears no share by rule: exit 2, "manual decision".
    """
    loaded = _load(pack)
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
        _refuse(str(error))
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
        _refuse(str(error))
    typer.echo(json.dumps(_described(deadline), ensure_ascii=False) if as_json else _deadline_for_people(deadline))


def _load(path: Path) -> Pack:
    try:
        return load_pack(path)
    except OSError as error:
        _refuse(f"{path} cannot be read: {error.strerror}")
    except PolicyError as error:
        _refuse(str(error))


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


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)
