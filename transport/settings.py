"""Client settings: one frozen value per process, and the exact dictionaries made from it.

Each dictionary stands beside the reason for every value that is not librdkafka's default. All
sizes fit the topics of `transport.topics`.
"""

import itertools
import os
import socket
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from messages.limits import MAX_BATCH_BYTES, MAX_QUERY_BYTES
from transport.client_keys import check_keys, masked, with_password

Delivery = Literal["exactly_once", "at_least_once"]
ClientDict = dict[str, Any]

TRANSACTION_TIMEOUT_MS = 60_000

_clients = itertools.count(1)


def unique_client_id() -> str:
    """Return a client id that no other live client has, which librdkafka relies on."""
    return f"petstream-{socket.gethostname()}-{os.getpid()}-{next(_clients)}"


class KafkaSettings(BaseModel):
    """How to reach the brokers and what delivery promises."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap_servers: str = Field(min_length=1)
    delivery: Delivery = "exactly_once"
    group_protocol: Literal["consumer", "classic"] = "consumer"
    """`consumer` is KIP-848, of brokers from 4.0 on."""
    extra: dict[str, str] = Field(default_factory=dict, repr=False)
    """Security and network settings under librdkafka's names; checked against the allow-list."""

    @model_validator(mode="after")
    def _check_extra(self) -> Self:
        check_keys(self.extra)
        return self

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Show everything but secrets."""
        return [*super().__repr_args__(), ("extra", masked(self.extra))]

    def consumer(self, group: str, *, prefetch: Literal["many", "few"]) -> ClientDict:
        """Return the settings of a consumer that settles its own offsets.

        Args:
            group: Consumer group.
            prefetch: `many` small records (queries), or `few` large ones (batches).
        """
        return self._common() | {
            "group.id": group,
            **self._group_protocol(),
            # Offsets are settled with the answers or not at all.
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # The default skips to the end: silent loss. An error makes expired offsets loud.
            "auto.offset.reset": "error",
            # Also makes the offset fetch after a rebalance wait for open transactions.
            "isolation.level": "read_committed",
            # A watchdog of our polling thread, not of the stage.
            "max.poll.interval.ms": 60_000,
            "allow.auto.create.topics": False,
            "check.crcs": True,
            # Where nothing comes, four requests a second: each costs the broker more than half a
            # millisecond. A partition that was left out of a request, being full or new, is asked
            # for in the next, so at most so much later.
            "fetch.wait.max.ms": 250,
            "fetch.max.bytes": 16_777_216,
            "fetch.message.max.bytes": MAX_BATCH_BYTES,
            "receive.message.max.bytes": 33_554_432,
            # A partition whose prefetch is full is asked again after this; the default is a second,
            # which every answer would wait for as soon as two batches are queued.
            "fetch.queue.backoff.ms": 5,
            "queued.min.messages": 1000 if prefetch == "many" else 32,
            "queued.max.messages.kbytes": 65_536 if prefetch == "many" else 32_768,
        }

    def transactional_producer(self, transactional_id: str) -> ClientDict:
        """Return the settings of the producer of an exactly-once session.

        Args:
            transactional_id: Stable per slot, unique among live instances. A random one would
                leave the pending offsets of a crashed instance in the way of its successor.
        """
        return self._session_producer() | {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            # Must not exceed the transaction's.
            "message.timeout.ms": 45_000,
            # Right behind a transaction the coordinator is busy ending it and asks to come again.
            # The default of 100 ms made the commit of back-to-back transactions 83 ms (p50), this
            # 2 ms; the wait still doubles with each retry, up to a second.
            "retry.backoff.ms": 5,
        }

    def idempotent_producer(self) -> ClientDict:
        """Return the settings of the producer of an at-least-once session."""
        return self._session_producer() | {
            "enable.idempotence": True,
            "message.timeout.ms": 45_000,
        }

    def query_producer(self) -> ClientDict:
        """Return the settings of a client that publishes queries."""
        return self._common() | {
            "enable.idempotence": True,
            "delivery.timeout.ms": 120_000,
            "linger.ms": 5,
            "compression.type": "zstd",
            # The topic's limit holds for a whole batch, so the batch must fit too.
            "message.max.bytes": MAX_QUERY_BYTES,
            "batch.size": 200_000,
            # The default is 1 GiB.
            "queue.buffering.max.kbytes": 65_536,
        }

    def reader(
        self,
        *,
        group: str | None = None,
        start: Literal["earliest", "latest", "error"] = "error",
        reports_ends: bool = False,
    ) -> ClientDict:
        """Return the settings of a read_committed reader that answers nobody: results, tables.

        Args:
            group: Consumer group; None for a reader that assigns its partitions itself.
            start: Where to begin without a committed offset.
            reports_ends: Whether reaching the end of a partition is told (`_PARTITION_EOF`).
        """
        return self._common() | {
            # librdkafka wants a group even where none is joined.
            "group.id": group or "petstream-reader",
            **(self._group_protocol() if group else {}),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": start,
            "isolation.level": "read_committed",
            "allow.auto.create.topics": False,
            "check.crcs": True,
            "enable.partition.eof": reports_ends,
            # Idle readers are many, and on a small machine each request costs a millisecond.
            "fetch.wait.max.ms": 500,
            "receive.message.max.bytes": 33_554_432,
            "fetch.max.bytes": 16_777_216,
            "queued.max.messages.kbytes": 32_768,
        }

    def admin(self) -> ClientDict:
        """Return the settings of an administration client."""
        # Its errors come as exceptions; its log would go to standard error.
        return self._common() | {"log_level": 2}

    def _common(self) -> ClientDict:
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "client.id": unique_client_id(),
            "socket.keepalive.enable": True,
            "ssl.endpoint.identification.algorithm": "https",
            "enable.ssl.certificate.verification": True,
            # With "rebootstrap" (librdkafka 2.16.0) a transactional producer hung in
            # send_offsets_to_transaction for minutes after the broker was killed and came back.
            "metadata.recovery.strategy": "none",
            **with_password(self.extra),
        }

    def _group_protocol(self) -> ClientDict:
        if self.group_protocol == "consumer":
            return {"group.protocol": "consumer"}
        return {
            "group.protocol": "classic",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 10_000,
            "heartbeat.interval.ms": 3_000,
        }

    def _session_producer(self) -> ClientDict:
        return self._common() | {
            "linger.ms": 2,
            "compression.type": "zstd",
            "message.max.bytes": MAX_BATCH_BYTES,
            "queue.buffering.max.messages": 100_000,
            "queue.buffering.max.kbytes": 65_536,
        }
