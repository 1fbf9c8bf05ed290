"""The distributed form says what the code and the local cluster say, and starts with no secret left open."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.common.settings import SERVICES, Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
PORTS = dict(zip(SERVICES, range(8001, 8006), strict=True))


def environment(service: str) -> dict[str, str]:
    found: dict[str, str] = COMPOSE["services"][service].get("environment", {})
    return found


def example() -> dict[str, str]:
    lines = (DEPLOY / "env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_is_probed_at_its_own_address(service: str) -> None:
    port = PORTS[service]
    container = COMPOSE["services"][service]
    assert container["command"] == ["huanquan", "serve", service, "--bind", "0.0.0.0"]  # noqa: S104 - inside its container
    assert container["healthcheck"]["test"][-1] == f"http://127.0.0.1:{port}/{service}/readyz"
    assert container["ports"] == [f"127.0.0.1:{port}:{port}"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_holds_the_password_of_its_own_app_role_and_no_other(service: str) -> None:
    passwords = set(re.findall(r"\$\{(\w+_PASSWORD)", " ".join(map(str, environment(service).values()))))
    assert passwords == {f"{service.upper()}_APP_PASSWORD"}


def test_only_migrations_hold_the_owners_passwords() -> None:
    holders = {name for name in COMPOSE["services"] if "_owner:" in str(environment(name))}
    assert holders == {"migrate"}


@pytest.mark.parametrize("service", SERVICES)
def test_production_settings_are_complete_for_each_service(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HUANQUAN_")]:
        monkeypatch.delenv(name)
    for name, value in environment(service).items():
        monkeypatch.setenv(name, re.sub(r"\$\{[^}]*\}", "0" * 64, str(value)))
    Settings().require(service)


def test_every_variable_without_a_default_is_in_the_example_and_every_secret_is_a_placeholder() -> None:
    used = set(re.findall(r"\$\{(\w+)", TEXT))
    assert used == example().keys()
    assert set(example().values()) == {"CHANGE_ME", ""}


def test_every_variable_is_refused_where_it_is_unset() -> None:
    refused = set(re.findall(r"\$\{(\w+):\?", TEXT))
    assert refused == {name for name, value in example().items() if value}


def test_audit_keeps_its_anchors_in_a_volume_that_its_user_may_write() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    [home] = re.findall(r"HUANQUAN_HOME=(\S+)", dockerfile)
    assert COMPOSE["services"]["audit"]["volumes"] == [f"audit:{home}"]
    assert "audit" in COMPOSE["volumes"]
    [user] = re.findall(r"^USER (\d+)", dockerfile, re.MULTILINE)
    assert re.search(rf"install --directory --owner={user} .*{home}$", dockerfile, re.MULTILINE)


def test_the_brokers_are_of_the_version_that_the_local_cluster_runs() -> None:
    pom = (DEPLOY / "kafka" / "pom.xml").read_text(encoding="utf-8")
    [version] = re.findall(r"<kafka\.version>(.*)</kafka\.version>", pom)
    images = {COMPOSE["services"][f"kafka-{n}"]["image"] for n in (1, 2, 3)}
    assert images == {f"apache/kafka:{version}"}


def test_the_image_starts_nothing_while_a_placeholder_is_left() -> None:
    command = [str(DEPLOY / "entrypoint"), "echo", "started"]
    url = "postgresql://intake_app:CHANGE_ME@postgres/intake"
    refused = run(command, {"URL": url, "GOOD": "x"})
    assert (refused.returncode, refused.stdout) == (78, "")
    assert "URL" in refused.stderr
    assert "GOOD" not in refused.stderr
    assert run(command, {"GOOD": "x"}).stdout == "started\n"


def test_the_database_is_not_prepared_with_a_placeholder_for_a_password() -> None:
    passwords = {name: "secret" for name in example() if name.endswith("_PASSWORD")}
    script = [str(DEPLOY / "postgres" / "init.sh")]
    refused = run(script, passwords | {"AUDIT_APP_PASSWORD": "CHANGE_ME", "HOUSING_OWNER_PASSWORD": ""})
    assert refused.returncode == 78
    assert "HOUSING_OWNER_PASSWORD AUDIT_APP_PASSWORD" in refused.stderr


def run(command: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"]} | variables
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
