"""What housing does on events and at moments that fall due."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.events import BenefitApproved
from libs.common.packs import Packs
from libs.common.policy import Pack
from libs.common.policy.model import FlatKind
from libs.common.ticker import Due
from services.housing.allocation import end_leases, expire_holds

_GRANT = text("""
    INSERT INTO eligibility (id, application, benefit, kind, number, certification, category, beneficiary, employer,
                             treasury, city_treasury, accepted_on, decided_on, policy_city, policy_version,
                             policy_sha256)
    SELECT *
      FROM unnest(CAST(:ids AS uuid[]), CAST(:applications AS uuid[]), CAST(:benefits AS text[]),
                  CAST(:kinds AS text[]), CAST(:numbers AS text[]), CAST(:certifications AS text[]),
                  CAST(:categories AS text[]), CAST(:beneficiaries AS uuid[]), CAST(:employers AS uuid[]),
                  CAST(:treasuries AS text[]), CAST(:cities AS text[]), CAST(:accepted AS date[]),
                  CAST(:decided AS date[]), CAST(:policy_cities AS text[]), CAST(:versions AS text[]),
                  CAST(:hashes AS text[]))
    ON CONFLICT (id) DO NOTHING
""")


class Handlers:
    """The handlers of one service, with the packs that they read."""

    def __init__(self, packs: Packs) -> None:
        self._packs = packs

    async def on_benefit_approved(self, tx: AsyncConnection, events: Sequence[BenefitApproved]) -> None:
        """Make an eligibility of each approved benefit that gives housing; money benefits are not ours."""
        packs = self._packs.for_events(events)
        flats = [(event, flat) for event in events if (flat := _flat_of(packs[event.policy], event))]
        if not flats:
            return
        ours = [event for event, _ in flats]
        cities = [packs[event.policy].city_treasury(event.decided_on).code for event in ours]
        await tx.execute(
            _GRANT,
            {
                "ids": [event.item for event in ours],
                "applications": [event.application for event in ours],
                "benefits": [event.benefit for event in ours],
                "kinds": [flat.value for _, flat in flats],
                "numbers": [event.number for event in ours],
                "certifications": [event.certification for event in ours],
                "categories": [event.category for event in ours],
                "beneficiaries": [event.beneficiary for event in ours],
                "employers": [event.employer for event in ours],
                "treasuries": [event.treasury for event in ours],
                "cities": cities,
                "accepted": [event.accepted_on for event in ours],
                "decided": [event.decided_on for event in ours],
                "policy_cities": [event.policy.city for event in ours],
                "versions": [event.policy.version for event in ours],
                "hashes": [event.policy.sha256 for event in ours],
            },
        )


async def on_hold_expiry(tx: AsyncConnection, dues: Sequence[Due]) -> None:
    """Due work: the last moment of these holds has passed."""
    await expire_holds(tx, [UUID(due.key) for due in dues], datetime.now(UTC))


async def on_lease_end(tx: AsyncConnection, dues: Sequence[Due]) -> None:
    """Due work: the last day of these leases is over."""
    await end_leases(tx, [UUID(due.key) for due in dues], datetime.now(UTC))


def _flat_of(pack: Pack, event: BenefitApproved) -> FlatKind | None:
    return pack.benefit(event.benefit, event.accepted_on).gives_flat
