"""Certifications and approvals of benefits: their numbers, their records, and who may look them up.

A number is as `identity.make_decision_number` says. Numbers are drawn under the lock of their sequence in the deciding
transaction, so none is missing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import Row, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from libs.common.auth import Principal
from libs.common.errors import NotFound
from libs.common.events import BenefitApproved, TalentCertified
from libs.common.identity import APPROVAL, CERTIFICATION, make_decision_number
from libs.common.policy import Pack, certification_valid_to
from services.workflow.access import policy_of, visible
from services.workflow.models import approval, cases, certification

_DRAW = text("""
    INSERT INTO number_sequence (prefix, treasury, year, last)
    SELECT :prefix, treasury, :year, number
      FROM unnest(CAST(:treasuries AS text[]), CAST(:numbers AS integer[])) AS r (treasury, number)
     ORDER BY treasury
    ON CONFLICT (prefix, treasury, year) DO UPDATE SET last = number_sequence.last + excluded.last
    RETURNING treasury, last
""")
_CERTIFY = text("""
    INSERT INTO certification (id, number, application, item, beneficiary, category, treasury, decided_on, valid_to,
                               proposed_by, confirmed_by)
    SELECT id, number, application, item, beneficiary, category, treasury, :decided_on, valid_to, proposed_by, :by
      FROM unnest(CAST(:ids AS uuid[]), CAST(:numbers AS text[]), CAST(:applications AS uuid[]),
                  CAST(:items AS uuid[]), CAST(:beneficiaries AS uuid[]), CAST(:categories AS text[]),
                  CAST(:treasuries AS text[]), CAST(:valid_tos AS date[]), CAST(:proposers AS text[]))
           AS r (id, number, application, item, beneficiary, category, treasury, valid_to, proposed_by)
""")
_CLAIM = text("""
    INSERT INTO claim (benefit, beneficiary, item)
    SELECT benefit, beneficiary, item
      FROM unnest(CAST(:benefits AS text[]), CAST(:beneficiaries AS uuid[]), CAST(:items AS uuid[]))
           AS r (benefit, beneficiary, item)
     ORDER BY benefit, beneficiary
    ON CONFLICT DO NOTHING RETURNING item
""")
_APPROVE = text("""
    INSERT INTO approval (item, number, application, benefit, beneficiary, certification, category, decided_on,
                          proposed_by, confirmed_by)
    SELECT item, number, application, benefit, beneficiary, certification, category, :decided_on, proposed_by, :by
      FROM unnest(CAST(:items AS uuid[]), CAST(:numbers AS text[]), CAST(:applications AS uuid[]),
                  CAST(:benefits AS text[]), CAST(:beneficiaries AS uuid[]), CAST(:certifications AS text[]),
                  CAST(:categories AS text[]), CAST(:proposers AS text[]))
           AS r (item, number, application, benefit, beneficiary, certification, category, proposed_by)
""")


@dataclass(frozen=True, slots=True)
class Grant:
    """One item to be granted: its row, its case and the case's pack. For a benefit, the certification it relies on."""

    item: Row[Any]
    case: Row[Any]
    pack: Pack
    category: str
    certification: str | None = None


class CertificationView(BaseModel):
    """A certification (认定)."""

    id: UUID
    number: str
    application: UUID
    item: UUID
    beneficiary: UUID
    category: str
    treasury: str
    decided_on: date
    valid_to: date = Field(description="有效期截止日（含）")
    proposed_by: str
    confirmed_by: str


class ApprovalView(BaseModel):
    """An approved benefit (批准兑现)."""

    number: str
    application: UUID
    item: UUID
    benefit: str
    beneficiary: UUID
    certification: str
    category: str
    decided_on: date
    proposed_by: str
    confirmed_by: str


async def certify(tx: AsyncConnection, grants: Sequence[Grant], *, by: str, decided_on: date) -> list[TalentCertified]:
    """Certify items whose cases the caller has locked; the caller emits what this returns."""
    numbers = await _draw(tx, CERTIFICATION, [grant.case.treasury for grant in grants], decided_on.year)
    made = [
        TalentCertified(
            policy=policy_of(grant.case),
            application=grant.case.application,
            item=grant.item.id,
            certification=uuid7(),
            number=number,
            category=grant.category,
            beneficiary=grant.case.beneficiary,
            employer=grant.case.employer,
            employer_kind=grant.case.employer_kind,
            treasury=grant.case.treasury,
            decided_on=decided_on,
            valid_to=certification_valid_to(grant.pack, decided_on=decided_on, accepted_on=grant.case.accepted_on),
        )
        for grant, number in zip(grants, numbers, strict=True)
    ]
    if made:
        await tx.execute(_CERTIFY, _certify_rows(made, grants) | {"by": by, "decided_on": decided_on})
    return made


def _certify_rows(made: Sequence[TalentCertified], grants: Sequence[Grant]) -> dict[str, Any]:
    return {
        "ids": [event.certification for event in made],
        "numbers": [event.number for event in made],
        "applications": [event.application for event in made],
        "items": [event.item for event in made],
        "beneficiaries": [event.beneficiary for event in made],
        "categories": [event.category for event in made],
        "treasuries": [event.treasury for event in made],
        "valid_tos": [event.valid_to for event in made],
        "proposers": [grant.item.proposed_by for grant in grants],
    }


async def claim(tx: AsyncConnection, grants: Sequence[Grant]) -> set[UUID]:
    """Claim each benefit once per beneficiary; gives the items that got it. Waits for a rival that has not ended."""
    if not grants:
        return set()
    parameters = {
        "benefits": [grant.item.benefit for grant in grants],
        "beneficiaries": [grant.case.beneficiary for grant in grants],
        "items": [grant.item.id for grant in grants],
    }
    return set((await tx.execute(_CLAIM, parameters)).scalars())


async def approve(tx: AsyncConnection, grants: Sequence[Grant], *, by: str, decided_on: date) -> list[BenefitApproved]:
    """Approve benefits that were claimed in this transaction; the caller emits what this returns."""
    numbers = await _draw(tx, APPROVAL, [grant.case.treasury for grant in grants], decided_on.year)
    made = [
        BenefitApproved(
            policy=policy_of(grant.case),
            application=grant.case.application,
            item=grant.item.id,
            benefit=grant.item.benefit,
            number=number,
            certification=str(grant.certification),
            category=grant.category,
            beneficiary=grant.case.beneficiary,
            payee_account=grant.case.payee_account,
            employer=grant.case.employer,
            employer_kind=grant.case.employer_kind,
            treasury=grant.case.treasury,
            accepted_on=grant.case.accepted_on,
            decided_on=decided_on,
        )
        for grant, number in zip(grants, numbers, strict=True)
    ]
    if made:
        await tx.execute(_APPROVE, _approve_rows(made, grants) | {"by": by, "decided_on": decided_on})
    return made


def _approve_rows(made: Sequence[BenefitApproved], grants: Sequence[Grant]) -> dict[str, Any]:
    return {
        "items": [event.item for event in made],
        "numbers": [event.number for event in made],
        "applications": [event.application for event in made],
        "benefits": [event.benefit for event in made],
        "beneficiaries": [event.beneficiary for event in made],
        "certifications": [event.certification for event in made],
        "categories": [event.category for event in made],
        "proposers": [grant.item.proposed_by for grant in grants],
    }


async def certification_by_number(tx: AsyncConnection, number: str, caller: Principal) -> CertificationView:
    """One certification. Raises NotFound."""
    joined = select(certification).join(cases, cases.c.application == certification.c.application)
    row = (await tx.execute(visible(joined.where(certification.c.number == number), caller))).first()
    if row is None:
        raise NotFound
    return CertificationView.model_validate(row, from_attributes=True)


async def certifications_of(tx: AsyncConnection, person: UUID) -> list[CertificationView]:
    """A person's certifications, oldest first."""
    mine = select(certification).where(certification.c.beneficiary == person)
    rows = await tx.execute(mine.order_by(certification.c.decided_on, certification.c.number))
    return [CertificationView.model_validate(row, from_attributes=True) for row in rows]


async def approvals_of(tx: AsyncConnection, person: UUID) -> list[ApprovalView]:
    """A person's approved benefits, oldest first."""
    mine = select(approval).where(approval.c.beneficiary == person)
    rows = await tx.execute(mine.order_by(approval.c.decided_on, approval.c.number))
    return [ApprovalView.model_validate(row, from_attributes=True) for row in rows]


async def _draw(tx: AsyncConnection, prefix: str, treasuries: Sequence[str], year: int) -> list[str]:
    """Numbers in the order of `treasuries`; holds the sequences until the commit."""
    if not treasuries:
        return []
    counts = Counter(treasuries)
    parameters = {"prefix": prefix, "year": year, "treasuries": list(counts), "numbers": list(counts.values())}
    drawn = {row.treasury: row.last - counts[row.treasury] for row in await tx.execute(_DRAW, parameters)}
    numbers = []
    for treasury in treasuries:
        drawn[treasury] += 1
        numbers.append(make_decision_number(prefix, treasury, year, drawn[treasury]))
    return numbers
