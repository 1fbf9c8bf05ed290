"""What opens in a browser opens without the internet, and what a machine reads is whole."""

import re

import httpx
import pytest

from deploy.engine import SERVICES
from tests.conftest import System

ELSEWHERE = re.compile(r"""(?:src|href)=["'](?:https?:)?//(?!127\.0\.0\.1)""")


@pytest.mark.parametrize("page", ["docs", "asyncapi"])
@pytest.mark.parametrize("service", SERVICES)
def test_a_services_pages_load_nothing_from_elsewhere(system: System, service: str, page: str) -> None:
    base = system.addresses.of(service)
    answer = httpx.get(f"{base}/{service}/{page}")
    assert answer.status_code == 200
    assert not ELSEWHERE.search(answer.text)
    for asset in re.findall(r"""(?:src|href)=["'](/[^"']+)""", answer.text):
        assert httpx.get(base + asset).status_code == 200, asset


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_says_that_it_lives_and_is_ready_and_how_it_fares(system: System, service: str) -> None:
    base = f"{system.addresses.of(service)}/{service}"
    assert httpx.get(f"{base}/livez").status_code == 200
    assert httpx.get(f"{base}/readyz").json() == {"status": "ready"}
    assert "http_requests" in httpx.get(f"{base}/metrics").text
    assert httpx.get(f"{base}/openapi.json").json()["openapi"].startswith("3.1")
    assert httpx.get(f"{base}/asyncapi.json").json()["asyncapi"] == "3.0.0"


def test_the_first_page_names_every_service_and_loads_nothing_from_elsewhere(system: System) -> None:
    page = httpx.get(system.addresses.of("intake") + "/").text
    assert all(f"/{service}/docs" in page for service in SERVICES)
    assert not ELSEWHERE.search(page)
