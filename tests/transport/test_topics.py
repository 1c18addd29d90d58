"""Topics of a namespace: specifications, making, verifying; the last two on a real broker."""

import pytest
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from messages.topics import TopicNames
from tests.contracts.members import eventually
from transport.admin import admin_client
from transport.errors import BrokerUnreachable, TopicConfigError
from transport.settings import KafkaSettings
from transport.topics import (
    _new_topic,
    create_topics,
    delete_topics,
    find_differences,
    topic_specs,
    verify_topics,
)


@pytest.fixture
def settings(broker: str) -> KafkaSettings:
    """How to reach the real broker."""
    return KafkaSettings(bootstrap_servers=broker)


def _alter(settings: KafkaSettings, topic: str, key: str, value: str) -> None:
    entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = admin_client(settings)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(20)


def test_specifications_are_those_of_the_contract() -> None:
    """Names, sizes, times and policies as the wire contract states them."""
    specs = {s.name: s for s in topic_specs(TopicNames("ns"), levels=(0, 1), partitions=6)}

    assert list(specs) == [
        "ns.queries",
        "ns.batches.0",
        "ns.batches.1",
        "ns.escalations",
        "ns.results",
        "ns.dead-letters",
        "ns.tasks",
    ]
    assert all(s.config["message.timestamp.type"] == "LogAppendTime" for s in specs.values())
    assert specs["ns.queries"].config["max.message.bytes"] == "262144"
    assert specs["ns.queries"].config["compression.type"] == "uncompressed"
    assert specs["ns.batches.1"].config["max.message.bytes"] == "8388608"
    assert specs["ns.dead-letters"].config["max.message.bytes"] == "327680"
    assert specs["ns.dead-letters"].config["retention.ms"] == str(30 * 86_400_000)
    assert specs["ns.tasks"].config["cleanup.policy"] == "compact"
    assert "retention.ms" not in specs["ns.tasks"].config
    assert specs["ns.results"].num_partitions == 6


def test_batch_partitions_can_be_chosen() -> None:
    """The pool's size decides the partitions of its batches, and of nothing else."""
    specs = topic_specs(TopicNames("ns"), levels=(3,), partitions=2, batch_partitions=8)

    assert {s.name: s.num_partitions for s in specs}["ns.batches.3"] == 8
    assert {s.name: s.num_partitions for s in specs}["ns.queries"] == 2


@pytest.mark.kafka
def test_created_topics_verify(settings: KafkaSettings, namespace: str) -> None:
    """What create makes, verify accepts; a second create changes nothing."""
    names = TopicNames(namespace)

    first = create_topics(settings, names, partitions=2)
    second = create_topics(settings, names, partitions=5)
    verify_topics(settings, names)

    assert all(topic.is_new for topic in first)
    assert not any(topic.is_new for topic in second)
    assert [t.num_partitions for t in second] == [t.num_partitions for t in first]


@pytest.mark.kafka
def test_missing_topic_is_named(settings: KafkaSettings, namespace: str) -> None:
    """Services do not start without their topics."""
    create_topics(settings, TopicNames(namespace), levels=(0,), partitions=1)

    with pytest.raises(TopicConfigError, match="petstream topics create") as caught:
        verify_topics(settings, TopicNames(namespace), levels=(0, 1))

    assert (caught.value.topic, caught.value.found) == (f"{namespace}.batches.1", "missing")


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("topic", "key", "value"),
    [
        ("queries", "max.message.bytes", "1048576"),
        ("queries", "compression.type", "producer"),
        ("batches.0", "max.message.bytes", "1048576"),
        ("results", "message.timestamp.type", "CreateTime"),
        ("dead-letters", "retention.ms", "3600000"),
        ("tasks", "cleanup.policy", "delete"),
    ],
)
def test_difference_is_named(
    settings: KafkaSettings, namespace: str, topic: str, key: str, value: str
) -> None:
    """A wrong setting stops the start with topic, key, wanted and found."""
    create_topics(settings, TopicNames(namespace), partitions=1)
    _alter(settings, f"{namespace}.{topic}", key, value)

    # A broker answers an alteration before it has learnt of it itself.
    specs = topic_specs(TopicNames(namespace))
    eventually(lambda: find_differences(settings, specs) != [], "the broker knows it")
    with pytest.raises(TopicConfigError) as caught:
        verify_topics(settings, TopicNames(namespace))

    error = caught.value
    assert (error.topic, error.key, error.found) == (f"{namespace}.{topic}", key, value)
    assert error.wanted in str(error)


@pytest.mark.kafka
@pytest.mark.parametrize("retention_ms", ["-1", "99999999999"])
def test_longer_retention_is_no_difference(
    settings: KafkaSettings, namespace: str, retention_ms: str
) -> None:
    """Whoever keeps records longer, or for ever, loses nothing."""
    create_topics(settings, TopicNames(namespace), partitions=1)
    _alter(settings, f"{namespace}.queries", "retention.ms", retention_ms)

    verify_topics(settings, TopicNames(namespace))


@pytest.mark.kafka
def test_partitions_are_compared_on_request(settings: KafkaSettings, namespace: str) -> None:
    """The command line can ask for partition counts; services do not."""
    names = TopicNames(namespace)
    create_topics(settings, names, partitions=2)

    differences = find_differences(
        settings, topic_specs(names, partitions=3), check_partitions=True
    )

    assert {(d.key, d.wanted, d.found) for d in differences} == {("partitions", "3", "2")}
    assert len(differences) == 5


def test_no_broker_is_said_in_one_line() -> None:
    """Without a broker the error names the address and what to look at."""
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1")

    with pytest.raises(BrokerUnreachable, match=r"127\.0\.0\.1:1") as caught:
        verify_topics(settings, TopicNames("ns"))

    assert "KAFKA_BOOTSTRAP_SERVERS" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.kafka
def test_deleted_topics_are_gone(settings: KafkaSettings, namespace: str) -> None:
    """At once, so that they can be made again; those that are not there are no error."""
    names = TopicNames(namespace)
    topics = [topic.topic for topic in create_topics(settings, names, partitions=1)]

    delete_topics(settings, topics)
    delete_topics(settings, topics)

    assert all(topic.is_new for topic in create_topics(settings, names, partitions=1))


def test_copies_are_the_brokers_default_unless_they_are_named() -> None:
    """One copy on somebody's cluster would be lost with one broker."""
    (spec,) = topic_specs(TopicNames("ns"))[:1]

    assert _new_topic(spec, None).replication_factor == -1
    assert _new_topic(spec, 3).replication_factor == 3
    assert (_new_topic(spec, 3).config or {})["min.insync.replicas"] == "2"


@pytest.mark.kafka
def test_refused_topic_is_named(settings: KafkaSettings, namespace: str) -> None:
    """More replicas than brokers: the broker's own words, and which topic."""
    with pytest.raises(TopicConfigError, match="refused"):
        create_topics(settings, TopicNames(namespace), partitions=1, replication=3)
