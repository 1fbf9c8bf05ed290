"""The topics file is sound, and a cluster is made to say what it says."""

import asyncio
import os
import random
import re
import string
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError
from pydantic import ValidationError

from deploy.engine import SERVICES
from deploy.forms import create
from deploy.topics import TOPICS_FILE, Topics, TopicsDifferError, apply_topics, load_topics
from libs.common.events import TOPICS
from libs.common.settings import Settings

BOOTSTRAP = os.environ.get("HUANQUAN_TEST_KAFKA")
needs_kafka = [
    pytest.mark.kafka,
    pytest.mark.skipif(not BOOTSTRAP, reason="HUANQUAN_TEST_KAFKA names no broker (deploy/kafka/cluster up)"),
]


def bootstrap() -> str:
    assert BOOTSTRAP is not None
    return BOOTSTRAP


@pytest.fixture
def name() -> str:
    return "test." + "".join(random.choices(string.ascii_lowercase, k=16))


def some_topics(name: str = "application.received", **changes: object) -> Topics:
    topic = {"key": "application", "retention": "forever", "publishers": ["intake"], "subscribers": ["audit"]}
    file = {
        "replication": 3,
        "min_insync_replicas": 2,
        "partitions": 6,
        "departments": ["education"],
        "topics": {name: topic},
    }
    return Topics.model_validate(file | changes)


def test_the_file_loads_and_holds_the_four_topics_that_the_users_named() -> None:
    topics = load_topics().topics
    assert {"application.received", "dept.completed", "talent.certified", "payout.settled"} <= topics.keys()


def test_every_topic_that_an_event_names_is_made_and_no_other() -> None:
    assert load_topics().topics.keys() == set(TOPICS)


def test_every_topic_is_kept_for_ever_and_heard_by_audit() -> None:
    for name, topic in load_topics().topics.items():
        assert topic.retention_ms == -1, name
        assert "audit" in topic.subscribers, name


def test_every_department_that_a_policy_gives_tasks_to_may_hear_of_them() -> None:
    packs = [path.read_text(encoding="utf-8") for path in TOPICS_FILE.parent.glob("policies/*/*.yaml")]
    tasked = {code for pack in packs for code in re.findall(r"\bdepartment: ([a-z_]+)", pack)}
    assert tasked
    assert tasked <= load_topics().topics["dept.assigned"].departments


def test_departments_read_their_assignments_and_nothing_else() -> None:
    readable = {name for name, topic in load_topics().topics.items() if topic.departments}
    assert readable == {"dept.assigned"}


@pytest.mark.parametrize(("copies", "in_sync"), [(1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_a_topic_survives_the_loss_of_one_copy_where_there_are_several(copies: int, in_sync: str) -> None:
    assert some_topics().settings("application.received", copies)["min.insync.replicas"] == in_sync


def test_days_of_retention_become_milliseconds() -> None:
    topic = {"key": "call", "retention": 2, "publishers": ["intake"], "subscribers": ["audit"]}
    [loaded] = some_topics(topics={"people.resolved": topic}).topics.values()
    assert loaded.retention_ms == 172_800_000


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"min_insync_replicas": 4}, "exceeds replication"),
        ({"colour": "red"}, "colour"),
        ({"topics": {"Application": {}}}, "pattern"),
        ({"topics": {}}, "at least 1"),
        (
            {"topics": {"a.b": {"key": "call", "retention": "forever", "publishers": ["intake"],
                                "subscribers": ["finance"]}}},
            "audit must hear every topic",
        ),
        (
            {"topics": {"a.b": {"key": "call", "retention": "forever", "publishers": ["intake"],
                                "subscribers": ["audit"], "departments": ["navy"]}}},
            "unknown departments",
        ),
    ],
)  # fmt: skip
def test_an_unsound_file_is_refused_with_its_place(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        some_topics(**changes)


def test_a_topic_written_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "topics.yaml"
    path.write_text("topics:\n  a.b: {}\n  a.b: {}\n", encoding="utf-8")
    with pytest.raises(yaml.YAMLError, match=r"written twice: \['a\.b'\]"):
        load_topics(path)


@pytest.mark.parametrize("name", SERVICES)
async def test_the_file_says_who_publishes_and_hears_what_as_the_services_do(name: str, tmp_path: Path) -> None:
    nowhere = {f"{service}_database_url": "postgresql://nobody@127.0.0.1/none" for service in SERVICES}
    settings = Settings(home=tmp_path, bus_url="postgresql://nobody@127.0.0.1/none", **nowhere)  # type: ignore[arg-type]
    service = create(name, settings)
    topics = load_topics().topics
    heard = {topic for topic, rights in topics.items() if name in rights.subscribers}
    published = {topic for topic, rights in topics.items() if name in rights.publishers}
    assert set(service.topics) == heard
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://huanquan") as client:
        operations = (await client.get(f"/{name}/asyncapi.json")).json()["operations"]
    told = {f"receive.{topic}" for topic in heard} | {f"send.{topic}" for topic in published}
    assert set(operations) == told


async def test_a_cluster_that_never_answers_is_given_up_on_with_its_error() -> None:
    with pytest.raises(KafkaConnectionError):
        await apply_topics("127.0.0.1:1", patience=0.1)


class TestOnACluster:
    """Each test names a topic of its own, so that any number may run on one cluster."""

    pytestmark = needs_kafka

    @pytest.fixture
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap())
        await admin.start()
        yield admin
        await admin.close()

    async def test_missing_topics_are_created_once(self, name: str) -> None:
        topics = some_topics(name)
        first = await apply_topics(bootstrap(), topics=topics)
        assert len(first) == 1
        assert first[0].startswith(f"{name}: created, 6 partitions, replication ")
        assert await apply_topics(bootstrap(), topics=topics) == []

    async def test_a_drifted_setting_is_set_right_and_others_stay(self, name: str, admin: AIOKafkaAdminClient) -> None:
        drifted = {"retention.ms": "1000", "compression.type": "lz4"}
        await admin.create_topics([NewTopic(name, 6, 1, topic_configs=drifted)])
        await until_set(admin, name, set(drifted.items()))
        topics = some_topics(name)
        assert f"{name}: retention.ms 1000 → -1" in await apply_topics(bootstrap(), 1, topics=topics)
        await until_set(admin, name, {("retention.ms", "-1"), ("compression.type", "lz4")})
        assert await apply_topics(bootstrap(), 1, topics=topics) == []

    async def test_another_number_of_partitions_or_copies_is_refused_with_every_difference(
        self, name: str, admin: AIOKafkaAdminClient
    ) -> None:
        await admin.create_topics([NewTopic(name, 2, 1)])
        await until_set(admin, name, {("cleanup.policy", "delete")})
        with pytest.raises(TopicsDifferError, match=r"2 partitions, 6 wanted; .* replication 1, 3 wanted"):
            await apply_topics(bootstrap(), 3, topics=some_topics(name))

    async def test_two_commands_at_the_same_moment_create_a_topic_once(self, name: str) -> None:
        topics = some_topics(name)
        done = await asyncio.gather(*(apply_topics(bootstrap(), topics=topics) for _ in range(4)))
        assert sum(len(lines) for lines in done) == 1


async def until_set(admin: AIOKafkaAdminClient, name: str, wanted: set[tuple[str, str]]) -> None:
    """Brokers learn of a change one after the other: ask until several in a row know it, at most 10 seconds."""
    knowing = 0
    for _ in range(100):
        [described] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
        [resource] = described.to_object()["resources"]
        found = {(entry["config_names"], entry["config_value"]) for entry in resource["config_entries"]}
        knowing = knowing + 1 if wanted <= found else 0
        if knowing == 10:
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"{name} never had {wanted}")
