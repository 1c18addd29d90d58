"""The topics of a namespace: their specifications, making them, verifying them.

Services verify and refuse to start on a difference; only `petstream topics create` makes topics.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from messages.limits import (
    MAX_ANSWER_BYTES,
    MAX_BATCH_BYTES,
    MAX_ESCALATION_BYTES,
    MAX_QUERY_BYTES,
    MAX_TASK_EVENT_BYTES,
)
from messages.topics import TopicNames
from transport.admin import REQUEST_TIMEOUT_S, admin_client, outcomes
from transport.deadline import Deadline
from transport.errors import BrokerUnreachable, TopicConfigError
from transport.settings import KafkaSettings

_DAY_MS = 86_400_000
DEAD_LETTER_MAX_BYTES = MAX_QUERY_BYTES + 65_536

# CreateTime is the sender's word: it would steer windows, deadlines and retention.
_APPEND_TIME = {"message.timestamp.type": "LogAppendTime"}


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What one topic must be like."""

    name: str
    num_partitions: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicDifference:
    """One respect in which a topic is not what its specification says."""

    topic: str
    key: str
    wanted: str
    found: str

    def as_error(self) -> TopicConfigError:
        """Return it as the error that services refuse to start with."""
        return TopicConfigError(self.topic, self.key, self.wanted, self.found)


@dataclass(frozen=True, slots=True)
class TopicCreated:
    """What became of one topic of `create_topics`."""

    topic: str
    num_partitions: int
    is_new: bool


def topic_specs(
    names: TopicNames,
    *,
    levels: Iterable[int] = (0, 1),
    partitions: int = 12,
    batch_partitions: int | None = None,
) -> list[TopicSpec]:
    """Return the specifications of all topics of a namespace.

    Args:
        names: The namespace.
        levels: One batch topic each.
        partitions: Of queries, escalations and results; at least twice the schedulers.
        batch_partitions: Of each batch topic; at least four times the workers of a pool. None:
            as the others.
    """
    query = _deleted_after(7, MAX_QUERY_BYTES)
    # The broker inflates and checks what tenants compress; a consumer would inflate a small gzip,
    # lz4 or snappy batch to gigabytes. For the same reason queries are small.
    query["compression.type"] = "uncompressed"
    tasks = {
        "cleanup.policy": "compact",
        "max.message.bytes": str(MAX_TASK_EVENT_BYTES),
        **_APPEND_TIME,
    }
    batch = _deleted_after(2, MAX_BATCH_BYTES)
    return [
        TopicSpec(names.queries, partitions, query),
        *(
            TopicSpec(names.batches(level), batch_partitions or partitions, batch)
            for level in levels
        ),
        TopicSpec(names.escalations, partitions, _deleted_after(2, MAX_ESCALATION_BYTES)),
        TopicSpec(names.results, partitions, _deleted_after(2, MAX_ANSWER_BYTES)),
        TopicSpec(names.dead_letters, 3, _deleted_after(30, DEAD_LETTER_MAX_BYTES)),
        TopicSpec(names.tasks, 1, tasks),
    ]


def create_topics(
    settings: KafkaSettings,
    names: TopicNames,
    *,
    levels: Iterable[int] = (0, 1),
    partitions: int = 12,
    batch_partitions: int | None = None,
    replication: int | None = None,
) -> list[TopicCreated]:
    """Make the topics that do not exist yet; those that do are left as they are.

    Args:
        settings: How to reach the brokers.
        names: The namespace.
        levels: One batch topic each.
        partitions: As of `topic_specs`.
        batch_partitions: Likewise.
        replication: Copies of each partition. None: as many as the brokers make by default.

    Raises:
        BrokerUnreachable: If no broker answers.
        TopicConfigError: If the broker refuses a topic.
    """
    specs = topic_specs(
        names, levels=levels, partitions=partitions, batch_partitions=batch_partitions
    )
    admin = admin_client(settings)
    existing = _partition_counts(admin, [spec.name for spec in specs], settings)
    missing = [spec for spec in specs if spec.name not in existing]
    if missing:
        new = [_new_topic(spec, replication) for spec in missing]
        futures = admin.create_topics(new, request_timeout=REQUEST_TIMEOUT_S)
        for topic, outcome in outcomes(futures, settings).items():
            if outcome is not None and outcome.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicConfigError(topic, "creation", "possible", f"refused: {outcome.str()}")
        _wait_for_leaders(admin, [spec.name for spec in missing], settings)
    return [
        TopicCreated(
            spec.name,
            existing.get(spec.name, spec.num_partitions),
            is_new=spec.name not in existing,
        )
        for spec in specs
    ]


def delete_topics(settings: KafkaSettings, topics: Iterable[str]) -> None:
    """Remove topics with all that is in them, and wait until they are gone.

    Raises:
        BrokerUnreachable: If no broker answers, or they are not gone in time.
        TopicConfigError: If the broker refuses.
    """
    names = list(topics)
    admin = admin_client(settings)
    futures = admin.delete_topics(names, request_timeout=REQUEST_TIMEOUT_S)
    for topic, outcome in outcomes(futures, settings).items():
        if outcome is not None and outcome.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicConfigError(topic, "deletion", "possible", f"refused: {outcome.str()}")
    deadline = Deadline(REQUEST_TIMEOUT_S)
    while _partition_counts(admin, names, settings):
        if deadline.has_passed:
            raise BrokerUnreachable(settings.bootstrap_servers, "deleted topics do not go")
        time.sleep(0.05)


def verify_topics(
    settings: KafkaSettings, names: TopicNames, *, levels: Iterable[int] = (0, 1)
) -> None:
    """Verify that every topic exists and is configured as its specification says.

    Numbers of partitions are not looked at: partitions may be added while services run.

    Raises:
        BrokerUnreachable: If no broker answers.
        TopicConfigError: For the first difference.
    """
    differences = find_differences(settings, topic_specs(names, levels=levels))
    if differences:
        raise differences[0].as_error()


def find_differences(
    settings: KafkaSettings, specs: Sequence[TopicSpec], *, check_partitions: bool = False
) -> list[TopicDifference]:
    """Compare all topics with their specifications.

    Args:
        settings: How to reach the brokers.
        specs: What is wanted.
        check_partitions: Whether the numbers of partitions must be equal too.

    Raises:
        BrokerUnreachable: If no broker answers.
    """
    admin = admin_client(settings)
    counts = _partition_counts(admin, [spec.name for spec in specs], settings)
    configs = _configs(admin, list(counts), settings)
    differences: list[TopicDifference] = []
    for spec in specs:
        if spec.name not in counts:
            differences.append(TopicDifference(spec.name, "topic", "present", "missing"))
            continue
        wanted = dict(spec.config)
        found = configs[spec.name]
        if check_partitions:
            wanted["partitions"] = str(spec.num_partitions)
            found = {**found, "partitions": str(counts[spec.name])}
        differences.extend(
            TopicDifference(spec.name, key, value, found.get(key, "unset"))
            for key, value in wanted.items()
            if not _is_met(key, value, found.get(key, "unset"))
        )
    return differences


def _is_met(key: str, wanted: str, found: str) -> bool:
    if key == "retention.ms":  # longer loses nothing; -1 is for ever
        return int(found) == -1 or int(found) >= int(wanted)
    return found == wanted


def _deleted_after(days: int, max_bytes: int) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(days * _DAY_MS),
        "max.message.bytes": str(max_bytes),
        **_APPEND_TIME,
    }


def _new_topic(spec: TopicSpec, replication: int | None) -> NewTopic:
    config = {**spec.config, "unclean.leader.election.enable": "false"}
    if replication is not None and replication >= 3:
        config["min.insync.replicas"] = "2"
    return NewTopic(
        spec.name,
        num_partitions=spec.num_partitions,
        replication_factor=-1 if replication is None else replication,  # -1: the brokers' default
        config=config,
    )


def _partition_counts(
    admin: AdminClient, topics: Iterable[str], settings: KafkaSettings
) -> dict[str, int]:
    """Return the number of partitions of each topic that exists."""
    described = outcomes(
        admin.describe_topics(TopicCollection(list(topics)), request_timeout=REQUEST_TIMEOUT_S),
        settings,
    )
    counts: dict[str, int] = {}
    for topic, outcome in described.items():
        if not isinstance(outcome, KafkaError):
            counts[topic] = len(outcome.partitions)
        elif outcome.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicConfigError(topic, "description", "readable", outcome.str())
    return counts


def _configs(
    admin: AdminClient, topics: Sequence[str], settings: KafkaSettings
) -> dict[str, dict[str, str]]:
    if not topics:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    futures = admin.describe_configs(resources, request_timeout=REQUEST_TIMEOUT_S)
    configs: dict[str, dict[str, str]] = {}
    entries: Any
    for resource, entries in outcomes(futures, settings).items():
        if isinstance(entries, KafkaError):
            raise TopicConfigError(resource.name, "configuration", "readable", entries.str())
        configs[resource.name] = {key: str(entry.value) for key, entry in entries.items()}
    return configs


def _wait_for_leaders(admin: AdminClient, topics: Sequence[str], settings: KafkaSettings) -> None:
    """Wait until clients can use the new topics: creation answers before leaders are known."""
    deadline = Deadline(REQUEST_TIMEOUT_S)
    while not deadline.has_passed:
        known = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
        partitions = [p for t in topics if t in known for p in known[t].partitions.values()]
        if all(t in known for t in topics) and all(p.leader >= 0 for p in partitions):
            return
        time.sleep(0.05)
    raise BrokerUnreachable(settings.bootstrap_servers, "new topics got no leader")
