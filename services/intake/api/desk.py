"""How routes reach the receiving desk."""

from typing import Annotated

from fastapi import Depends, Request

from services.intake.api.group import GroupCommit
from services.intake.applications import Desk


async def _desk(request: Request) -> Desk:
    found: Desk = request.app.state.desk
    return found


async def _group(request: Request) -> GroupCommit:
    found: GroupCommit = request.app.state.group
    return found


AtDesk = Annotated[Desk, Depends(_desk)]
InGroup = Annotated[GroupCommit, Depends(_group)]
