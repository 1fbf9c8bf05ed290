"""The token command prints a token that the verifier takes, and refuses production."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from deploy.sample.issuer import TOKEN_ROLES, token
from libs.common.auth import Verifier
from libs.common.settings import Settings


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setenv("HUANQUAN_HOME", str(tmp_path))
    app = typer.Typer()
    app.command()(token)
    return app


@pytest.mark.parametrize("role", TOKEN_ROLES)
async def test_a_token_for_each_role_is_printed(command: typer.Typer, role: str) -> None:
    printed = CliRunner().invoke(command, ["--role", role])
    assert printed.exit_code == 0, printed.output
    settings = Settings()
    verifier = Verifier(str(settings.jwks), issuer=str(settings.issuer), audience=settings.audience)
    assert (await verifier.verify(printed.output.strip())).role == role


async def test_an_org_unit_and_a_person_can_be_named(command: typer.Typer) -> None:
    arguments = ["--role", "talent", "--person", "p-7", "--subject", "li", "--org-unit", "410522/public_security"]
    printed = CliRunner().invoke(command, arguments)
    settings = Settings()
    verifier = Verifier(str(settings.jwks), issuer=str(settings.issuer), audience=settings.audience)
    caller = await verifier.verify(printed.output.strip())
    assert (caller.subject, caller.person, caller.org_unit) == ("li", "p-7", "410522/public_security")


def test_nonsense_and_production_are_refused(command: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CliRunner().invoke(command, ["--role", "emperor"]).exit_code == 2
    assert CliRunner().invoke(command, ["--role", "service"]).exit_code == 2
    assert CliRunner().invoke(command, ["--role", "ops", "--hours", "nan"]).exit_code == 2
    monkeypatch.setenv("HUANQUAN_MODE", "production")
    assert CliRunner().invoke(command, ["--role", "ops"]).exit_code == 2


@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        ("x", "write <treasury>/<department>"),
        ("999999/education", "no treasury '999999'; there are 410000, 410500, "),
        ("410522/postal_service", "no department 'postal_service'; there are big_data, education, "),
    ],
)
def test_an_org_unit_that_the_pack_does_not_know_is_refused_with_those_it_knows(
    command: typer.Typer, unit: str, reason: str
) -> None:
    refused = CliRunner().invoke(command, ["--role", "department", "--org-unit", unit])
    assert refused.exit_code == 2
    assert reason in " ".join(refused.stderr.replace("│", " ").split())


def test_the_help_lists_the_roles_and_who_needs_an_org_unit(command: typer.Typer) -> None:
    told = " ".join(CliRunner().invoke(command, ["--help"]).output.replace("│", " ").split())
    assert (
        "portal, department, talent, handler, window_clerk, specialist, talent_office, treasury, housing, supervisor, "
        "auditor, ops" in told
    )
    assert "service" not in TOKEN_ROLES
    assert "department, window_clerk, specialist, talent_office, treasury, housing see" in told
