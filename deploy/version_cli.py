"""A new version of a policy, on the command line: a ruling of the talent office written into it, and its publishing."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from deploy.interpretation import NotInterpreted, Ruling, interpreted, read_value
from deploy.rules_cli import ServedPack, day_of, load, refuse, told_differences
from libs.common.calendar import local_date
from libs.common.policy import Pack, PackRefused, PolicyError

TALENT_OFFICE = "talent_office"


def interpret(
    *,
    about: Annotated[str, typer.Option("--rule", metavar="ID", help="The assumption, by its name in `policy check`.")],
    number: Annotated[str, typer.Option(metavar="NUMBER", help="Number of the ruling, as 安人才办〔2026〕3 号.")],
    text: Annotated[str, typer.Option(metavar="TEXT", help="What it says, in Chinese.")],
    version: Annotated[str, typer.Option(metavar="VERSION", help="The new version, above the old one.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the new version is written; not over a file.")],
    issued_on: Annotated[
        date | None, typer.Option("--on", parser=day_of, metavar="DATE", help="Day of the ruling; today if left out.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field that holds otherwise, as share=1/4; repeatable."),
    ] = None,
    since: Annotated[
        date | None,
        typer.Option("--from", parser=day_of, metavar="DATE", help="From when it does; from the rule's own first day."),
    ] = None,
    pack: ServedPack,
) -> None:
    """Record a ruling of the talent office that confirms an assumption, or changes it (第十条), in a new version.

    The ruling becomes a document of the new version, and the rule rests on it. Nothing runs under the new version until
    it is published.
    """
    loaded = load(pack)
    office = next((each.title for each in loaded.departments if each.code == TALENT_OFFICE), TALENT_OFFICE)
    try:
        fields = _fields(changes or ())
        ruling = Ruling(about, number, issued_on or local_date(datetime.now(UTC)), office, text, fields, since)
        body = interpreted(loaded, ruling, version=version)
        becomes = Pack.parse(body, str(out))
        told = told_differences(loaded, becomes)
        _write_new(out, body)
    except (NotInterpreted, PackRefused, PolicyError) as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{out} 无法写入，请检查路径，且不能是已有的文件（{error.strerror}）。")
    typer.echo(f"{told}\n已写入 {out}；核对后发布：huanquan policy publish {out}")


def publish(pack: Annotated[Path, typer.Argument(metavar="PACK", help="File of the policy pack.")]) -> None:
    """Bring a version of a policy into every service of the deployment, also while they run.

    Every application keeps the version under which it was accepted. A version that is published stays: what is changed
    gets a new one.
    """
    from deploy import operations

    loaded = load(pack)
    lines = asyncio.run(operations.publish(loaded))
    typer.echo(
        "\n".join(
            [
                *lines,
                f"自 {loaded.in_force_from} 起施行；运行中的服务数秒内取用，此后新受理的申请按施行中的最高版本办理。",
            ]
        )
    )


def _write_new(out: Path, body: bytes) -> None:
    """Raises OSError, and leaves nothing half written."""
    with out.open("xb") as file:
        try:
            file.write(body)
        except OSError:
            out.unlink()
            raise


def _fields(given: Sequence[str]) -> dict[str, object]:
    fields = dict(map(_field, given))
    if len(fields) < len(given):
        raise NotInterpreted("--set 把同一项写了两次，请删去一个。")
    return fields


def _field(given: str) -> tuple[str, object]:
    name, equals, value = given.partition("=")
    if not (name and equals):
        raise NotInterpreted(f"“{given}”应写成 FIELD=VALUE，如 share=1/4。")
    return name, read_value(value)
