"""The token command prints a token that the verifier takes, and refuses production."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from deploy.sample.issuer import token
from libs.common.auth import ROLES, Verifier
from libs.common.settings import Settings


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setenv("HUANQUAN_HOME", str(tmp_path))
    app = typer.Typer()
    app.command()(token)
    return app


@pytest.mark.parametrize("role", sorted(ROLES))
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
    assert CliRunner().invoke(command, ["--role", "department", "--org-unit", "x"]).exit_code == 2
    monkeypatch.setenv("HUANQUAN_MODE", "production")
    assert CliRunner().invoke(command, ["--role", "ops"]).exit_code == 2
