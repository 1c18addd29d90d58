"""What a deployment on one machine makes before its services start."""

import socket

import pytest

from messages.topics import TopicNames
from petstream.deployment import (
    NamespaceInUseError,
    Shape,
    make_topics,
    serve_for_a_while,
    service_specs,
)
from petstream.kafka_connection import kafka_settings
from petstream.settings import load_settings
from transport.admin import admin_client


@pytest.mark.kafka
def test_topics_have_the_partitions_that_the_services_can_use(broker: str, namespace: str) -> None:
    """Four for a scheduler and four for a worker: a transaction pays for each that it writes to."""
    settings = load_settings().with_flags(bootstrap_servers=broker, namespace=namespace)
    names = TopicNames(namespace)

    make_topics(settings, Shape(schedulers=2, small_workers=3, large_workers=1))

    topics = admin_client(kafka_settings(settings)).list_topics(timeout=30).topics
    found = {name: len(topics[name].partitions) for name in topics if name.startswith(namespace)}
    assert found[names.queries] == found[names.escalations] == found[names.results] == 8
    assert found[names.batches(0)] == found[names.batches(1)] == 12


def topics_of(broker: str, namespace: str) -> set[str]:
    settings = load_settings().with_flags(bootstrap_servers=broker, namespace=namespace)
    topics = admin_client(kafka_settings(settings)).list_topics(timeout=30).topics
    return {name for name in topics if name.startswith(f"{namespace}.")}


def test_slots_differ_from_machine_to_machine() -> None:
    """Two machines that run `up` in one namespace would otherwise fence each other for ever."""
    slots = [spec.slot for spec in service_specs(Shape(schedulers=2, small_workers=2))]

    assert len(set(slots)) == len(slots) == 5
    assert all(slot.startswith(f"{socket.gethostname()}-") for slot in slots)


@pytest.mark.kafka
@pytest.mark.slow
def test_what_serves_for_a_while_leaves_nothing_on_a_broker_that_stays(
    broker: str, namespace: str
) -> None:
    settings = load_settings().with_flags(bootstrap_servers=broker, namespace=namespace)

    with serve_for_a_while(settings, []) as (served, _):
        assert served.bootstrap_servers == broker
        assert len(topics_of(broker, namespace)) == 7

    assert topics_of(broker, namespace) == set()


@pytest.mark.kafka
def test_it_does_not_take_the_place_of_services_that_stay(broker: str, namespace: str) -> None:
    """Nor of their tasks, whose weights would be gone with it."""
    settings = load_settings().with_flags(bootstrap_servers=broker, namespace=namespace)
    make_topics(settings, Shape())

    with (
        pytest.raises(NamespaceInUseError, match=f"namespace {namespace} .*--attach"),
        serve_for_a_while(settings, []),
    ):
        pass

    assert len(topics_of(broker, namespace)) == 7, "left as they were"
