"""The development issuer as a command: a bearer token for any role, on standard output."""

from typing import Annotated

import typer

from libs.common.auth import ORG_UNIT_ROLES, ROLES, IssuerRefused, TokenIssuer
from libs.common.settings import Settings

# What a role belongs to when no org unit is named: an office of the city level.
CITY_UNITS = {
    "department": "410500/public_security",
    "specialist": "410500/public_security",
    "window_clerk": "410500/government_services",
    "talent_office": "410500/talent_office",
    "treasury": "410500/finance",
    "housing": "410500/housing",
}


def token(
    role: Annotated[str, typer.Option(help=f"One of {', '.join(ROLES)}")],
    org_unit: Annotated[str | None, typer.Option(help="<treasury>/<department>, as 410522/public_security")] = None,
    subject: Annotated[str | None, typer.Option(help="Who; the role and unit unless told")] = None,
    person: Annotated[str | None, typer.Option(help="person_ref of the talent or handler")] = None,
    hours: Annotated[float, typer.Option(help="How long it holds")] = 8,
) -> None:
    """Print a bearer token for development. Refused in production mode."""
    unit = org_unit or (CITY_UNITS[role] if role in ORG_UNIT_ROLES else None)
    try:
        made = TokenIssuer(Settings()).token(role, org_unit=unit, subject=subject, person=person, hours=hours)
    except IssuerRefused as refused:
        raise typer.BadParameter(str(refused)) from None
    typer.echo(made)
