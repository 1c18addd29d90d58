"""Where a client publishes and reads."""

from dataclasses import dataclass
from typing import Self

from messages.reply import Encoding
from transport.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class Connection:
    """The broker, the namespace, and how queries are encoded there."""

    kafka: KafkaSettings
    namespace: str = "petstream"
    encoding: Encoding = "msgpack"
    timeout_s: float = 10.0
    """How long to wait for the broker when connecting and when asking for positions."""

    @classmethod
    def of(cls, connection: "Connection | str") -> Self:
        """Return `connection`, or one with defaults where only bootstrap servers are given."""
        if isinstance(connection, cls):
            return connection
        return cls(KafkaSettings(bootstrap_servers=str(connection)))
