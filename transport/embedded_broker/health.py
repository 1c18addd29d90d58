"""Asks a broker whether it serves: a real admin request with a time limit."""

import logging
from typing import NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

_logger = logging.getLogger(__name__)


class ClusterHealth(NamedTuple):
    """What a healthy cluster answers."""

    cluster_id: str
    num_nodes: int


def ask_health(bootstrap_servers: str, timeout_s: float) -> ClusterHealth | None:
    """Ask for the cluster's description; None if there is no answer in time."""
    # Connection errors are an answer here, not something to print.
    admin = AdminClient({"bootstrap.servers": bootstrap_servers}, logger=_logger)
    try:
        answer = admin.describe_cluster(request_timeout=timeout_s).result(timeout_s + 1.0)
    except (KafkaException, TimeoutError):
        return None
    return ClusterHealth(answer.cluster_id, len(answer.nodes))
