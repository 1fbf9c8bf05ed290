"""Treasuries (一级财政), affiliations and kinds of employer, as pure types; a policy pack lists them.

A treasury is not a region: it serves regions, and a zone has a treasury of its own. An employer belongs to a
treasury by an affiliation (第二条, 按照财政等隶属关系), never by its address alone.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from libs.common.dated import Dated

RegionCode = Annotated[str, Field(pattern=r"^[1-9][0-9]{5}$")]
"""Six digits after GB/T 2260."""

TreasuryCode = Annotated[str, Field(pattern=r"^[1-9][0-9]{5}$")]
"""Six digits; by custom the code of the region that the treasury belongs to, or the zone's own."""


class TreasuryKind(StrEnum):
    """What decides a treasury's ratio. `province` only clears settlements between the others."""

    CITY_LEVEL = "city_level"
    DISTRICT = "district"
    COUNTY = "county"
    ZONE = "zone"
    PROVINCE = "province"


class AffiliationKind(StrEnum):
    """How an employer belongs to a treasury: fiscal first, the others where fiscal does not decide (等)."""

    FISCAL = "fiscal"
    ADMINISTRATIVE = "administrative"
    TAX = "tax"
    REGISTRATION = "registration"


class EmployerKind(StrEnum):
    """What an employer is; it decides the employer's share, where it is not a manual decision."""

    ENTERPRISE = "enterprise"
    INSTITUTION = "institution"
    GOVERNMENT = "government"
    SOCIAL_ORGANISATION = "social_organisation"
    OWN_STARTUP = "own_startup"
    CENTRAL_OR_PROVINCIAL = "central_or_provincial"


class RegionServed(Dated):
    """A region that a treasury serves, with the days on which it does."""

    region: RegionCode


class Treasury(Dated):
    """A treasury: its code, its Chinese name for people, its kind and the regions that it serves."""

    code: TreasuryCode
    title: str = Field(min_length=1)
    kind: TreasuryKind
    regions: tuple[RegionServed, ...] = ()


class Affiliation(Dated):
    """An employer's tie to a treasury, with the days on which it holds."""

    kind: AffiliationKind
    treasury: TreasuryCode
