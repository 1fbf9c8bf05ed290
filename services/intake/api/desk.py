"""How routes reach the receiving desk."""

from typing import Annotated

from fastapi import Depends, Request

from services.intake.applications import Desk


async def _desk(request: Request) -> Desk:
    found: Desk = request.app.state.desk
    return found


AtDesk = Annotated[Desk, Depends(_desk)]
