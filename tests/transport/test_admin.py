"""Topic ids in the form that the messages carry."""

import pytest
from confluent_kafka import Uuid
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from messages.origin import Origin
from transport.admin import topic_ids, url_safe
from transport.settings import KafkaSettings


def test_topic_ids_are_url_safe() -> None:
    """An id of which librdkafka makes "/" and "+" is given as Kafka's own tools give it."""
    plain = str(Uuid(0x1234567890ABCDEF, 0x3E3E3E3FFB_FFFFFF))

    assert set("+/") & set(plain), "the example shows nothing"
    assert not set("+/") & set(url_safe(plain))


@pytest.mark.kafka
def test_every_topic_of_a_real_broker_can_be_an_origin(broker: str, namespace: str) -> None:
    """Sixteen topics have random ids, of which some hold the special characters."""
    settings = KafkaSettings(bootstrap_servers=broker)
    admin = AdminClient(settings.admin())
    names = [f"{namespace}.{number}" for number in range(16)]
    for future in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
        future.result()

    found = topic_ids(admin, names, settings)

    assert len(set(found.values())) == len(names)
    for topic, topic_id in found.items():
        assert Origin(topic, topic_id, 0, 0).topic_id == topic_id
        assert not set("+/=") & set(topic_id)
    for future in admin.delete_topics(names).values():
        future.result()
