"""What a deployment on one machine makes before its services start."""

import pytest

from messages.topics import TopicNames
from petstream.deployment import Shape, make_topics
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
