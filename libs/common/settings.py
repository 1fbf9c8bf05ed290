"""What a deployment chooses: engines, addresses, keys and limits, read from `HUANQUAN_…` variables.

Secrets are `SecretStr`, so neither a repr nor a log line shows them. In development what is not set has a working
default below `home`; in production `require` refuses to start and names every missing variable at once.
"""

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "HUANQUAN_"
MIB = 1024 * 1024
DEVELOPMENT_URL = "http://127.0.0.1:8000"
POLICIES = Path(__file__).resolve().parents[2] / "deploy" / "policies"
DEVELOPMENT_ISSUER = "huanquan-development"
SERVICES = ("intake", "workflow", "finance", "housing", "audit")


class SettingsMissing(Exception):
    """Variables that the deployment needs and has not set; the message names each."""

    def __init__(self, variables: Iterable[str]) -> None:
        self.variables = tuple(sorted(variables))
        super().__init__("not set: " + ", ".join(self.variables))


class Settings(BaseSettings):
    """One deployment's choices. Each field is the variable `HUANQUAN_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", env_ignore_empty=True)

    mode: Literal["development", "production"] = "development"
    home: Path = Path(".huanquan")
    instance: str = Field(default="0", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="unique per process of a service")

    bus: Literal["postgres", "kafka"] = "postgres"
    bus_url: SecretStr | None = Field(default=None, description="database of the postgres bus")
    kafka: str | None = Field(default=None, description="bootstrap servers, host:port,host:port")

    intake_database_url: SecretStr | None = None
    workflow_database_url: SecretStr | None = None
    finance_database_url: SecretStr | None = None
    housing_database_url: SecretStr | None = None
    audit_database_url: SecretStr | None = None
    intake_migration_url: SecretStr | None = None
    workflow_migration_url: SecretStr | None = None
    finance_migration_url: SecretStr | None = None
    housing_migration_url: SecretStr | None = None
    audit_migration_url: SecretStr | None = None

    vault_key: SecretStr | None = Field(
        default=None, description="master key, hexadecimal, 32 bytes or more: intake, finance"
    )
    vault_retired_keys: SecretStr | None = Field(default=None, description="earlier master keys, comma between")
    jwks: str | None = Field(default=None, description="path or URL of the public keys that tokens are checked with")
    service_key: Path | None = Field(default=None, description="private JWK a service signs its own tokens with")
    issuer: str | None = None
    audience: str = "huanquan"
    token_hours: float = Field(default=24, gt=0, description="a token that was given for longer is refused")

    policies: Path = POLICIES
    intake_url: str = Field(default=DEVELOPMENT_URL, description="where people:resolve is asked")
    schemas_url: str = Field(
        default="",
        description="base address that subscribers fetch event schemas below, `<it>/events/<Type>.json`: any service's;"
        " intake_url where not set",
    )

    traces_url: str | None = Field(
        default=None,
        description="where spans go (OTLP over HTTP), such as http://collector:4318/v1/traces; nowhere if not set",
    )
    traces_ratio: float = Field(default=1.0, ge=0, le=1, description="part of the traces begun here that is sent")

    max_body_bytes: int = Field(default=MIB, gt=0)
    body_seconds: float = Field(default=30, gt=0, description="time a client has for each MiB of a body")
    requests_per_second: float = Field(default=5_000, gt=0, description="per client (unknown: address), sustained")
    requests_burst: int = Field(default=10_000, gt=0, description="per client (unknown: address), at once")

    @model_validator(mode="after")
    def _derived_defaults(self) -> Self:
        self.schemas_url = self.schemas_url or self.intake_url
        if self.mode == "development":
            self.jwks = self.jwks or str(self.home / "issuer" / "jwks.json")
            self.service_key = self.service_key or self.home / "issuer" / "private.json"
            self.issuer = self.issuer or DEVELOPMENT_ISSUER
        return self

    def database_url(self, service: str) -> str:
        """Address of the service's database for the role `<service>_app`. Raises SettingsMissing."""
        return self._url(f"{service}_database_url")

    def migration_url(self, service: str) -> str:
        """The same for the role `<service>_owner`, read by migrations only. Raises SettingsMissing."""
        return self._url(f"{service}_migration_url")

    def bus_address(self) -> str:
        """Address of the chosen bus. Raises SettingsMissing."""
        if self.bus == "postgres":
            return self._url("bus_url")
        if self.kafka is None:
            raise SettingsMissing([variable("kafka")])
        return self.kafka

    def vault(self) -> tuple[str, tuple[str, ...]]:
        """The current master key and the retired ones; in development a key of its own is made on first use.

        Raises SettingsMissing in production.
        """
        retired = self.vault_retired_keys.get_secret_value().split(",") if self.vault_retired_keys else []
        if self.vault_key is not None:
            return self.vault_key.get_secret_value(), tuple(key.strip() for key in retired)
        if self.mode == "production":
            raise SettingsMissing([variable("vault_key")])
        return _development_secret(self.home / "vault.key"), ()

    def require(self, *services: str) -> None:
        """In production, refuse to start these services while a variable they need is unset. Raises SettingsMissing."""
        if self.mode == "development":
            return
        needed = ["jwks", "issuer", "kafka" if self.bus == "kafka" else "bus_url"]
        needed += [f"{service}_database_url" for service in services]
        needed += ["vault_key"] if {"intake", "finance"} & set(services) else []
        needed += ["service_key"] if set(services) - {"intake"} else []
        missing = [variable(field) for field in needed if getattr(self, field) is None]
        if missing:
            raise SettingsMissing(missing)

    def _url(self, field: str) -> str:
        value: SecretStr | None = getattr(self, field)
        if value is None:
            raise SettingsMissing([variable(field)])
        return value.get_secret_value()


def variable(field: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field.upper()


def _development_secret(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_once(path, secrets.token_hex(32))
    return path.read_text().strip()


def write_once(path: Path, text: str) -> None:
    """Write a private file (0600) whole, unless another process did so first; then that one stays."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
