"""Which pack a record was decided under: stored with each application and carried in each event."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 in lower-case hex."""


class PackIdentity(BaseModel):
    """City, version and SHA-256 (lower-case hex) of one immutable policy pack (DESIGN §6)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    city: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=64, examples=["anyang"])]
    version: Annotated[str, Field(min_length=1, max_length=64, examples=["2021-4"])]
    sha256: Annotated[Sha256, Field(examples=["2e34c0b24d52c1cb" * 4])]

    def __str__(self) -> str:
        return f"{self.city}/{self.version}@{self.sha256[:12]}"
