"""Outstanding work of consumer groups: what was produced for them and is not yet settled.

A scheduler asks it before it closes a window, so that an overload stays in the durable query topic
instead of in batches that were planned too early.

Counted in offsets, between the group's committed offset and the end that read_committed readers
see. Transactions put markers, and aborted ones dead records, into that range, so the count may be
too high, by a factor of two at most in normal work. It must not stay too high, or work would be
held back for ever: a range that does not move is looked into, and counts nothing if nothing
visible is in it.
"""

import logging
import threading
from collections.abc import Mapping
from time import monotonic

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from transport.admin import REQUEST_TIMEOUT_S, admin_client
from transport.client_log import client_log
from transport.deadline import Deadline
from transport.records import Partition
from transport.settings import KafkaSettings

logger = logging.getLogger(__name__)

_EVERY_S = 0.25
_IDLE_EVERY_S = 2.0
"""While nobody asks: three requests for each group."""
_STALE_AFTER_S = 5.0
_LOOK_AFTER_S = 1.0
"""A range that stays the same for so long may hold no records at all."""
_LOOK_S = 5.0


class Backlog:
    """Measures on its own thread; asking costs nothing."""

    def __init__(self, settings: KafkaSettings, group_topics: Mapping[str, str]) -> None:
        """Describe what to measure.

        Args:
            settings: How to reach the brokers.
            group_topics: The topic that each group works on.
        """
        self._settings = settings
        self._group_topics = dict(group_topics)
        self._outstanding: dict[str, int] = {}
        self._measured_s = float("-inf")
        self.num_measurements = 0
        """Of all groups together, since the start."""
        self._ranges: dict[Partition, tuple[int, int, float]] = {}
        self._empty_until: dict[Partition, int] = {}
        self.num_looks = 0
        """How often unmoved ranges were looked into."""
        self._members: dict[str, Consumer] = {}
        self._closed = threading.Event()
        self._asked = threading.Event()
        self._measured = threading.Event()
        self._thread = threading.Thread(target=self._run, name="backlog", daemon=True)

    def start(self) -> None:
        """Begin to measure."""
        self._thread.start()

    def close(self) -> None:
        """Stop measuring."""
        self._closed.set()
        self._asked.set()
        if self._thread.is_alive():
            self._thread.join()

    def outstanding(self, group: str) -> int | None:
        """Return the records that wait for a group; None where no recent measurement says it.

        Whoever asks after a while without questions gets an answer up to two seconds old, and has
        it measured at once.
        """
        self._asked.set()
        if monotonic() - self._measured_s > _STALE_AFTER_S:
            return None
        return self._outstanding.get(group)

    def has_room(self, group: str, max_outstanding: int) -> bool:
        """Tell whether a group has less than this outstanding; no if that is not known."""
        count = self.outstanding(group)
        return count is not None and count < max_outstanding

    def wait_until_measured(self, timeout_s: float) -> bool:
        """Wait for the first measurement; return whether there is one."""
        return self._measured.wait(timeout_s)

    def _run(self) -> None:
        admin = admin_client(self._settings)
        while not self._closed.is_set():
            started_s = monotonic()
            try:
                counts = {
                    group: self._measure(admin, group, topic)
                    for group, topic in self._group_topics.items()
                }
            except (KafkaException, TimeoutError) as error:
                logger.warning("backlog not measured: %s", error)
            else:
                self._outstanding, self._measured_s = counts, monotonic()
                self.num_measurements += 1
                self._measured.set()
            self._closed.wait(max(0.0, _EVERY_S - (monotonic() - started_s)))
            self._asked.wait(_IDLE_EVERY_S - _EVERY_S)
            self._asked.clear()
        for member in self._members.values():
            member.close()

    def _measure(self, admin: AdminClient, group: str, topic: str) -> int:
        ends = self._ends(admin, topic)
        committed = self._committed(group, list(ends))
        now_s = monotonic()
        for source, end in ends.items():
            begin, seen_end, since_s = self._ranges.get(source, (-1, -1, now_s))
            is_same = (begin, seen_end) == (committed[source], end)
            self._ranges[source] = (committed[source], end, since_s if is_same else now_s)
        self._look_into_unmoved(now_s)
        return sum(self._count(source) for source in ends)

    def _count(self, source: Partition) -> int:
        begin, end, _ = self._ranges[source]
        gap = end - max(begin, self._empty_until.get(source, 0))
        if self._settings.delivery == "exactly_once":
            gap -= 1  # the marker that ends the last transaction
        return max(0, gap)

    def _look_into_unmoved(self, now_s: float) -> None:
        """Find ranges without a visible record: markers and aborted records only."""
        unmoved = {
            source: begin
            for source, (begin, _, since_s) in self._ranges.items()
            if self._count(source) > 0 and now_s - since_s > _LOOK_AFTER_S
        }
        if not unmoved:
            return
        self._empty_until.update(_ends_without_records(self._settings, unmoved))
        self.num_looks += 1
        for source in unmoved:  # look again only after as long a time
            begin, end, _ = self._ranges[source]
            self._ranges[source] = (begin, end, monotonic())

    def _ends(self, admin: AdminClient, topic: str) -> dict[Partition, int]:
        metadata = admin.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic]
        if metadata.error is not None:
            raise KafkaException(metadata.error)
        latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        futures = admin.list_offsets(
            {TopicPartition(topic, index): latest for index in metadata.partitions},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=REQUEST_TIMEOUT_S,
        )
        return {
            Partition(source.topic, source.partition): future.result(REQUEST_TIMEOUT_S).offset
            for source, future in futures.items()
        }

    def _committed(self, group: str, sources: list[Partition]) -> dict[Partition, int]:
        """Return the committed offsets; a partition that was never read counts from 0.

        Asked through a consumer that never joins: librdkafka (2.16.1, issue 5040) ends the process
        when the admin client's `list_consumer_group_offsets` meets a coordinator that moves.
        """
        member = self._members.get(group)
        if member is None:
            member = Consumer(self._settings.reader(group=group), logger=client_log)
            self._members[group] = member
        asked = [TopicPartition(*source) for source in sources]
        found = member.committed(asked, timeout=REQUEST_TIMEOUT_S)
        for answer in found:
            if answer.error is not None:
                raise KafkaException(answer.error)
        return {Partition(tp.topic, tp.partition): max(0, tp.offset) for tp in found}


def _ends_without_records(
    settings: KafkaSettings, starts: Mapping[Partition, int]
) -> dict[Partition, int]:
    """Return the ends of those partitions that hold no visible record from their start on."""
    consumer = Consumer(settings.reader(start="earliest", reports_ends=True), logger=client_log)
    empty: dict[Partition, int] = {}
    undecided = set(starts)
    deadline = Deadline(_LOOK_S)
    try:
        consumer.assign([TopicPartition(*source, start) for source, start in starts.items()])
        while undecided and not deadline.has_passed:
            message = consumer.poll(deadline.left_s)
            if message is None or message.topic() is None:
                continue
            source = Partition(message.topic() or "", message.partition() or 0)
            error = message.error()
            if error is None:
                undecided.discard(source)
                consumer.pause([TopicPartition(*source)])
            elif error.code() == KafkaError._PARTITION_EOF and source in undecided:
                undecided.discard(source)
                empty[source] = message.offset() or 0
    finally:
        consumer.close()
    return empty
