"""What goes in and out: consumed records, records to publish, and claims on partitions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from messages.origin import Origin
from messages.original_record import OriginalRecord

Headers = tuple[tuple[str, bytes | None], ...]
"""Repeated names and null values are kept as they came."""


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


@dataclass(frozen=True, slots=True)
class Record:
    """A consumed record."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    appended_ms: int
    """The broker's append time, milliseconds since 1970 (topics are LogAppendTime)."""
    corrupt: str | None = None
    """Why some of its bytes could not be had; these are empty. Such a record must still be
    answered and settled: by its coordinates, if nothing else is left of it."""
    bad_header: str | None = None
    """Why its producer's headers cannot be had, though the bytes are sound: there are none, and
    key and value are as they came."""

    @property
    def source(self) -> Partition:
        """The partition that it was read from."""
        return Partition(self.topic, self.partition)

    @property
    def num_bytes(self) -> int:
        """Bytes of key, value and headers."""
        return _num_bytes(self.key, self.value, self.headers)


def published_record(
    origin: Origin, key: bytes | None, original: OriginalRecord, appended_ms: int
) -> Record:
    """Return a query's record as its producer published it, from what travels with the query."""
    return Record(
        topic=origin.topic,
        partition=origin.partition,
        offset=origin.offset,
        key=key,
        value=original.value,
        headers=original.headers,
        appended_ms=appended_ms,
    )


@dataclass(frozen=True, slots=True)
class OutgoingRecord:
    """A record to publish."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int | None = None
    """None: the key decides, or chance where there is none."""

    @property
    def num_bytes(self) -> int:
        """Bytes of key, value and headers."""
        return _num_bytes(self.key, self.value, self.headers)


class Claim(NamedTuple):
    """The right to settle a partition up to an offset, valid within one assignment epoch."""

    source: Partition
    epoch: int
    next_offset: int
    """The offset after the last record that the claim settles."""


def latest_claims(claims: Iterable[Claim]) -> list[Claim]:
    """Keep the last claim of each partition: later work settles what came before it."""
    return list({claim.source: claim for claim in claims}.values())


def _num_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    return (
        len(key or b"")
        + len(value or b"")
        + sum(len(name) + len(content or b"") for name, content in headers)
    )
