"""Settings: working defaults in development, one complete complaint in production, no secret ever shown."""

from pathlib import Path

import pytest

from libs.common.settings import POLICIES, Settings, SettingsMissing


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("HUANQUAN_")]:
        monkeypatch.delenv(name)


def test_development_needs_nothing_but_a_home(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    settings.require("intake", "workflow", "finance", "housing", "audit")
    assert settings.jwks == str(tmp_path / "issuer" / "jwks.json")
    assert settings.policies == POLICIES
    assert settings.vault() == settings.vault()
    assert len(bytes.fromhex(settings.vault()[0])) == 32
    assert (tmp_path / "vault.key").stat().st_mode & 0o777 == 0o600


def test_schemas_are_where_intake_is_unless_the_deployment_says_otherwise() -> None:
    assert Settings().schemas_url == "http://127.0.0.1:8000"
    assert Settings(intake_url="http://intake:8001").schemas_url == "http://intake:8001"
    assert Settings(schemas_url="https://talent.example").schemas_url == "https://talent.example"


def test_production_names_every_missing_variable_at_once() -> None:
    with pytest.raises(SettingsMissing) as refused:
        Settings(mode="production").require("intake", "finance")
    assert refused.value.variables == (
        "HUANQUAN_BUS_URL",
        "HUANQUAN_FINANCE_DATABASE_URL",
        "HUANQUAN_INTAKE_DATABASE_URL",
        "HUANQUAN_ISSUER",
        "HUANQUAN_JWKS",
        "HUANQUAN_SERVICE_KEY",
        "HUANQUAN_VAULT_KEY",
    )
    assert all(name in str(refused.value) for name in refused.value.variables)


def test_production_makes_no_key_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(SettingsMissing, match="HUANQUAN_VAULT_KEY"):
        Settings(mode="production", home=tmp_path).vault()
    assert not list(tmp_path.iterdir())


def test_variables_are_read_and_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUANQUAN_INTAKE_DATABASE_URL", "postgresql://intake_app:geheim@db/intake")
    monkeypatch.setenv("HUANQUAN_VAULT_KEY", "beef" * 16)
    settings = Settings()
    assert settings.database_url("intake").endswith("@db/intake")
    assert "geheim" not in f"{settings!r} {settings}"
    assert "beef" not in f"{settings!r} {settings.model_dump()}"


def test_an_unset_address_says_which_variable_to_set() -> None:
    with pytest.raises(SettingsMissing, match="HUANQUAN_HOUSING_MIGRATION_URL"):
        Settings().migration_url("housing")
