"""The administration client, with its errors made ours."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from transport.errors import BrokerUnreachable
from transport.settings import KafkaSettings

Key = TypeVar("Key")
Value = TypeVar("Value")

REQUEST_TIMEOUT_S = 10.0

_UNREACHABLE = {
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError._RESOLVE,
}


def admin_client(settings: KafkaSettings) -> AdminClient:
    """Return an administration client."""
    return AdminClient(settings.admin())


def outcomes(
    futures: Mapping[Key, "Future[Value]"], settings: KafkaSettings
) -> dict[Key, Value | KafkaError]:
    """Wait for the answers of one request: a value or an error for each key.

    Raises:
        BrokerUnreachable: If nobody answered.
    """
    answers: dict[Key, Value | KafkaError] = {}
    for key, future in futures.items():
        try:
            answers[key] = future.result(REQUEST_TIMEOUT_S + 5)
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            if error.code() in _UNREACHABLE:
                raise BrokerUnreachable(settings.bootstrap_servers, error.str()) from exception
            answers[key] = error
    return answers


def topic_ids(admin: AdminClient, topics: Iterable[str], settings: KafkaSettings) -> dict[str, str]:
    """Return the broker's UUID of each topic that exists, in its 22-character form.

    The form is Kafka's own: base64 of the URL-safe alphabet.
    """
    found = outcomes(
        admin.describe_topics(TopicCollection(list(topics)), request_timeout=REQUEST_TIMEOUT_S),
        settings,
    )
    return {
        topic: url_safe(str(description.topic_id))
        for topic, description in found.items()
        if not isinstance(description, KafkaError)
    }


def url_safe(topic_id: str) -> str:
    """Return a topic id as Kafka's tools print it; librdkafka prints plain base64."""
    return topic_id.replace("+", "-").replace("/", "_")
