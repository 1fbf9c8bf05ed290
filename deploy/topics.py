"""The topics of the system: what `topics.yaml` says, and what makes a Kafka cluster say the same.

Missing topics are created; settings that drifted are set right. Another number of partitions or fewer copies
are refused: more partitions would send keys elsewhere and lose their order, and copies are moved by operators.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidReplicationFactorError,
    KafkaError,
    NoError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints, model_validator

TOPICS_FILE = Path(__file__).with_name("topics.yaml")
_DAY_MS = 24 * 60 * 60 * 1000
_SET_ON_THE_TOPIC = 1  # DescribeConfigs' ConfigSource: DYNAMIC_TOPIC_CONFIG

Service = Literal["intake", "workflow", "finance", "housing", "audit"]
TopicName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]*\.[a-z][a-z_]*$")]
Department = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]*$")]


class TopicsDifferError(Exception):
    """The cluster differs from `topics.yaml` in what cannot be set right in place; names every difference."""


class Topic(BaseModel):
    """One topic; `retention` is `forever` or days, `key` what orders it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Literal["application", "employer", "treasury", "call"]
    retention: Literal["forever"] | PositiveInt
    publishers: frozenset[Service] = Field(min_length=1)
    subscribers: frozenset[Service] = Field(min_length=1)
    departments: frozenset[Department] = frozenset()

    @property
    def retention_ms(self) -> int:
        """Milliseconds, -1 for ever (Kafka's `retention.ms`)."""
        return -1 if self.retention == "forever" else self.retention * _DAY_MS


class Topics(BaseModel):
    """The whole file. `departments` are those that may be named in a topic's rights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replication: PositiveInt
    min_insync_replicas: PositiveInt
    partitions: PositiveInt
    departments: frozenset[Department]
    topics: Mapping[TopicName, Topic] = Field(min_length=1)

    @model_validator(mode="after")
    def _copies_suffice(self) -> Self:
        if self.min_insync_replicas > self.replication:
            msg = f"min_insync_replicas {self.min_insync_replicas} exceeds replication {self.replication}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _readers_are_sound(self) -> Self:
        for name, topic in self.topics.items():
            if unknown := topic.departments - self.departments:
                msg = f"{name}: unknown departments {sorted(unknown)}"
                raise ValueError(msg)
            if "audit" not in topic.subscribers:
                msg = f"{name}: audit must hear every topic"
                raise ValueError(msg)
        return self

    def settings(self, name: str, replication: int) -> dict[str, str]:
        """Kafka's settings of topic `name` with `replication` copies, all but one of them in sync."""
        in_sync = min(self.min_insync_replicas, max(1, replication - 1))
        return {
            "cleanup.policy": "delete",
            "min.insync.replicas": str(in_sync),
            "retention.bytes": "-1",
            "retention.ms": str(self.topics[name].retention_ms),
        }


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a topic written twice is an error, not a silent last word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if doubled := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"written twice: {sorted(doubled)}", node.start_mark)
        return super().construct_mapping(node, deep)


def load_topics(path: Path = TOPICS_FILE) -> Topics:
    """Read and check the file. Raises `pydantic.ValidationError` or `yaml.YAMLError`, naming the place."""
    with path.open(encoding="utf-8") as file:
        return Topics.model_validate(yaml.load(file, Loader=_UniqueKeys))  # noqa: S506 - it is a SafeLoader


async def apply_topics(
    bootstrap: str,
    replication: int | None = None,
    *,
    topics: Topics | None = None,
    patience: float = 60.0,
) -> list[str]:
    """Make the cluster at `bootstrap` (`host:port,…`) have every topic; doing it again does nothing.

    Without `replication` the file's is used, but 1 where the cluster is and will be a single broker.
    Returns one line for each thing done.
    A cluster that is still starting is asked again for `patience` seconds, then its `KafkaError` is raised.
    Raises `TopicsDifferError`, before anything is changed, when partitions or copies of an existing topic differ.
    """
    wanted = topics or load_topics()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    with _hushed(logging.getLogger("aiokafka")):
        while True:
            try:
                return await _apply_once(bootstrap, replication, wanted)
            except (KafkaError, TimeoutError) as error:
                if not _passes(error) or loop.time() >= deadline:
                    raise
            await asyncio.sleep(0.5)


def _passes(error: KafkaError | TimeoutError) -> bool:
    # While brokers are still registering there are too few of them for the copies asked for.
    return isinstance(error, TimeoutError | InvalidReplicationFactorError) or bool(error.retriable)


@contextmanager
def _hushed(logger: logging.Logger) -> Iterator[None]:
    # The client reports each refused connection as an error; while a cluster starts they are expected.
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


async def _apply_once(bootstrap: str, replication: int | None, wanted: Topics) -> list[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="huanquan-topics")
    try:
        await admin.start()
        copies = replication or (1 if await _stands_alone(admin) else wanted.replication)
        existing = await _describe(admin, wanted)
        _refuse_differences(existing, wanted, copies)
        missing = [name for name in wanted.topics if name not in existing]
        created = await _create(admin, missing, wanted, copies)
        return created + await _correct(admin, sorted(existing), wanted, copies)
    finally:
        await admin.close()


async def _stands_alone(admin: AIOKafkaAdminClient) -> bool:
    """Whether this is a cluster of one broker: its own default says so too, or others are still starting."""
    brokers = (await admin.describe_cluster())["brokers"]
    if len(brokers) > 1:
        return False
    wish = {"default.replication.factor": None}
    broker = ConfigResource(ConfigResourceType.BROKER, str(brokers[0]["node_id"]), wish)
    [described] = await admin.describe_configs([broker])
    [resource] = described.to_object()["resources"]
    _raise_refusal(resource["error_code"], f"broker {resource['resource_name']}: {resource['error_message']}")
    [entry] = resource["config_entries"]
    return bool(entry["config_value"] == "1")


async def _describe(admin: AIOKafkaAdminClient, wanted: Topics) -> dict[str, list[dict[str, Any]]]:
    """Partitions of those wanted topics that exist."""
    existing = {}
    for topic in await admin.describe_topics(list(wanted.topics)):
        error = for_code(topic["error_code"])
        if error is NoError:
            existing[topic["topic"]] = topic["partitions"]
        elif error is not UnknownTopicOrPartitionError:
            raise error(topic["topic"])
    return existing


def _refuse_differences(existing: Mapping[str, list[dict[str, Any]]], wanted: Topics, copies: int) -> None:
    differences = []
    for name, partitions in existing.items():
        if len(partitions) != wanted.partitions:
            differences.append(f"{name}: {len(partitions)} partitions, {wanted.partitions} wanted")
        fewest = min(len(partition["replicas"]) for partition in partitions)
        if fewest < copies:
            differences.append(f"{name}: replication {fewest}, {copies} wanted")
    if differences:
        raise TopicsDifferError("; ".join(differences))


async def _create(admin: AIOKafkaAdminClient, names: list[str], wanted: Topics, copies: int) -> list[str]:
    if not names:
        return []
    new = [NewTopic(name, wanted.partitions, copies, topic_configs=wanted.settings(name, copies)) for name in names]
    done = []
    for name, code, message in (await admin.create_topics(new)).topic_errors:
        error = for_code(code)
        if error is NoError:
            done.append(f"{name}: created, {wanted.partitions} partitions, replication {copies}")
        elif error is not TopicAlreadyExistsError:  # made by another process at the same moment
            raise error(f"{name}: {message}")
    return done


async def _correct(admin: AIOKafkaAdminClient, names: list[str], wanted: Topics, copies: int) -> list[str]:
    """Set right the settings that differ; keep those that operators set beside ours."""
    if not names:
        return []
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    [described] = await admin.describe_configs(resources)
    done, changes = [], []
    for resource in described.to_object()["resources"]:
        _raise_refusal(resource["error_code"], f"{resource['resource_name']}: {resource['error_message']}")
        name, entries = resource["resource_name"], resource["config_entries"]
        values = {entry["config_names"]: entry["config_value"] for entry in entries}
        differing = {k: v for k, v in wanted.settings(name, copies).items() if values[k] != v}
        if differing:
            done += [f"{name}: {key} {values[key]} → {value}" for key, value in differing.items()]
            # The request replaces everything set on the topic, so it has to repeat what stays.
            ours = [entry["config_names"] for entry in entries if entry["config_source"] == _SET_ON_THE_TOPIC]
            kept = {key: values[key] for key in ours}
            changes.append(ConfigResource(ConfigResourceType.TOPIC, name, kept | differing))
    if changes:
        await _alter(admin, changes)
    return done


def _raise_refusal(code: int, message: str) -> None:
    error = for_code(code)
    if error is not NoError:
        raise error(message)


async def _alter(admin: AIOKafkaAdminClient, changes: list[ConfigResource]) -> None:
    for response in await admin.alter_configs(changes):
        for code, message, _, name in response.resources:
            _raise_refusal(code, f"{name}: {message}")


if __name__ == "__main__":
    for line in asyncio.run(apply_topics(os.environ["HUANQUAN_KAFKA"])):
        sys.stdout.write(line + "\n")
