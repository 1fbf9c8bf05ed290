"""The offices of the sample, where something else than the platform is away."""

import pytest
from aiokafka.errors import KafkaConnectionError

from deploy.sample import offices


class Away:
    """A consumer whose brokers answer at the third call."""

    calls = 0

    async def start(self) -> None:
        self.calls += 1
        if self.calls < 3:
            raise KafkaConnectionError("unable to bootstrap")


async def test_a_department_connects_when_the_broker_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offices, "RETRY_SECONDS", 0.01)
    consumer = Away()
    await offices._connected(consumer)
    assert consumer.calls == 3
