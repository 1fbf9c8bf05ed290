"""A system of its own to attack, with one record of each kind in it."""

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping

import pytest

from tests.conftest import System, start_system
from tests.records import make_records

EXAMPLES = int(os.environ.get("EXAMPLES", "0"))
"""How many examples of each operation a deep run tries (`make attack`), and half as many times the mangled files; 0 in
`make test`, which tries a few, always the same."""

SEED = int(os.environ.get("SEED", "1"))


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The running system."""
    started = start_system(tmp_path_factory.mktemp("attacked"), "--no-sample")
    yield started
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(30) == 0


@pytest.fixture(scope="session")
def records(attacked: System) -> Mapping[str, str]:
    """One record of each kind in it, by the name of the parameter that stands for it."""
    return asyncio.run(make_records(attacked))
