"""The development issuer as a command: a bearer token for any role, on standard output."""

from typing import Annotated

import typer

from deploy.refusals import Refusal
from deploy.served import served_policy
from libs.common.auth import ORG_UNIT_ROLES, ROLES, IssuerRefused, TokenIssuer
from libs.common.policy import PolicyError, load_pack
from libs.common.settings import Settings

TOKEN_ROLES = tuple(role for role in ROLES if role != "service")  # a service signs its own

# Offices that no task goes to, so that no pack lists them among its departments.
OFFICES = ("government_services", "housing")
# Those that a role belongs to where no org unit is named; of a department, the first that tasks go to.
OFFICE_OF = {
    "window_clerk": "government_services",
    "talent_office": "talent_office",
    "treasury": "finance",
    "housing": "housing",
}


def token(
    role: Annotated[str, typer.Option(metavar="ROLE", help=f"One of {', '.join(TOKEN_ROLES)}.")],
    org_unit: Annotated[
        str | None,
        typer.Option(
            metavar="CODE",
            help="<treasury>/<department> of the policy that is served, as 410522/public_security. It bounds what "
            f"{', '.join(role for role in TOKEN_ROLES if role in ORG_UNIT_ROLES)} see: these belong to one, by "
            "default to an office of the city level; the other roles need none.",
        ),
    ] = None,
    subject: Annotated[str | None, typer.Option(metavar="NAME", help="Who; by default the role and its unit.")] = None,
    person: Annotated[
        str | None,
        typer.Option(metavar="REF", help="person_ref of the talent or handler, who see only what names them."),
    ] = None,
    hours: Annotated[
        float, typer.Option(help="How long it holds, in hours; up to HUANQUAN_TOKEN_HOURS, 24 by default.")
    ] = 8,
) -> None:
    """Print a bearer token for development. Refused in production mode (HUANQUAN_MODE)."""
    if role not in TOKEN_ROLES:
        raise typer.BadParameter(f"no role {role!r}; there are {', '.join(TOKEN_ROLES)}", param_hint="--role")
    settings = Settings()
    if not 0 < hours <= settings.token_hours:
        raise typer.BadParameter(f"{hours} is not within 0 to {settings.token_hours:g}", param_hint="--hours")
    if org_unit is not None:
        _check_org_unit(org_unit, settings)
    elif role in ORG_UNIT_ROLES:
        org_unit = _city_unit(role, settings)
    try:
        made = TokenIssuer(settings).token(role, org_unit=org_unit, subject=subject, person=person, hours=hours)
    except IssuerRefused as refused:
        raise typer.BadParameter(str(refused)) from None
    typer.echo(made)


def _city_unit(role: str, settings: Settings) -> str:
    """The office of the city level that a role belongs to. Raises BadParameter."""
    try:
        policy = served_policy(settings.policies)
    except (PolicyError, Refusal) as error:
        raise typer.BadParameter(str(error)) from error
    return f"{policy.city}/{OFFICE_OF.get(role) or policy.departments[0]}"


def _check_org_unit(unit: str, settings: Settings) -> None:
    """Refuse a treasury or a department that no policy pack of the deployment knows. Raises BadParameter."""
    try:
        packs = [load_pack(path) for path in sorted(settings.policies.glob("*/*.yaml"))]
    except PolicyError as error:
        raise typer.BadParameter(str(error)) from error
    treasuries = {treasury.code for pack in packs for treasury in pack.treasuries}
    departments = {department.code for pack in packs for department in pack.departments} | set(OFFICES)
    treasury, slash, department = unit.partition("/")
    if not slash:
        problem = "write <treasury>/<department>, as 410522/public_security"
    elif treasury not in treasuries:
        problem = f"no treasury {treasury!r}; there are {', '.join(sorted(treasuries))}"
    elif department not in departments:
        problem = f"no department {department!r}; there are {', '.join(sorted(departments))}"
    else:
        return
    raise typer.BadParameter(f"{unit!r}: {problem}", param_hint="--org-unit")
