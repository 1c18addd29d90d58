"""Records that cannot be read and offsets that cannot be kept, on a real broker."""

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from tests.contracts.backends import KafkaBackend
from tests.contracts.members import LIMIT_S, Deaf, eventually
from tests.transport.raw_producer import append_with_header
from transport.deadline import Deadline
from transport.errors import DataLossDetected
from transport.records import Claim, Partition, Record
from transport.session import Session

pytestmark = pytest.mark.kafka


class Reader:
    """A session on `in`, and the means to trouble it."""

    def __init__(self, backend: KafkaBackend) -> None:
        self.backend = backend
        self.topic = backend.name("in")
        self.sessions: list[Session] = []

    def another_backend(self) -> KafkaBackend:
        """Return the same log behind new clients."""
        prefix = self.topic.removesuffix(".in")
        return KafkaBackend(self.backend.settings.bootstrap_servers, prefix)

    def open(self) -> Session:
        """Open a session of the one slot."""
        session = Session(
            self.backend.settings, group=self.backend.name("group"), topics=[self.topic], slot="a"
        )
        session.open(Deaf())
        self.sessions.append(session)
        return session

    def read(self, session: Session, num_records: int) -> list[Record]:
        """Poll until so many records came."""
        records: list[Record] = []

        def has_all() -> bool:
            records.extend(session.poll(100, 0.1))
            return len(records) >= num_records

        eventually(has_all, f"{num_records} records")
        return records

    def settle(self, session: Session, next_offset: int) -> None:
        """Settle everything before an offset."""
        source = Partition(self.topic, 0)
        session.publish([], [Claim(source, session.epoch(source) or 0, next_offset)])

    def delete_before(self, offset: int) -> None:
        """Delete records, as retention does."""
        admin = AdminClient(self.backend.settings.admin())
        for future in admin.delete_records([TopicPartition(self.topic, 0, offset)]).values():
            future.result(LIMIT_S)

    def append_bomb(self, num_records: int) -> None:
        """Append one small zstd batch that inflates past what a consumer takes."""
        config = {
            "bootstrap.servers": self.backend.settings.bootstrap_servers,
            "compression.type": "zstd",
            "message.max.bytes": 100_000_000,
            "batch.size": 100_000_000,
            # So that they stand in one batch. Flushing would end the wait while the records still
            # move, one by one, to the partition that the metadata just named.
            "linger.ms": 500,
            "queue.buffering.max.kbytes": 1_000_000,
            "log_level": 2,
        }
        producer = Producer(config)
        for _ in range(num_records):
            producer.produce(self.topic, bytes(40_000_000 // num_records), partition=0)

        def is_sent() -> bool:
            producer.poll(0.1)
            return len(producer) == 0

        eventually(is_sent, "the bomb is appended")


@pytest.fixture
def reader(broker: str, namespace: str) -> Iterator[Reader]:
    """A topic of one partition and a group for it."""
    backend = KafkaBackend(broker, namespace)
    backend.create_topic("in", 1)
    reader = Reader(backend)
    yield reader
    for session in reader.sessions:
        session.close(Deadline(5.0))


@pytest.mark.parametrize("num_records", [1, 4])
def test_unreadable_batch_is_passed_record_by_record(reader: Reader, num_records: int) -> None:
    """Each record of it is delivered as its coordinates; those around it are untouched."""
    reader.backend.append("in", [b"before"], 0)
    reader.append_bomb(num_records)
    reader.backend.append("in", [b"after"], 0)

    records = reader.read(reader.open(), num_records + 2)

    assert [record.offset for record in records] == list(range(num_records + 2))
    assert [records[0].value, records[-1].value] == [b"before", b"after"]
    for record in records[1:-1]:
        assert record.corrupt is not None
        assert "decompress" in record.corrupt.lower()
        assert (record.key, record.value, record.headers) == (None, None, ())


def test_unsettled_unreadable_records_come_again(reader: Reader) -> None:
    """A successor sees them too: passing by is not settling."""
    reader.append_bomb(2)
    first = reader.open()
    reader.read(first, 2)
    reader.sessions.remove(first)
    first.close(Deadline(5.0))

    assert [r.corrupt is not None for r in reader.read(reader.open(), 2)] == [True, True]


def test_expired_records_stop_the_session(reader: Reader) -> None:
    """Records deleted before they were read are named exactly; nothing is skipped silently."""
    reader.backend.append("in", [b"%d" % i for i in range(10)], 0)
    first = reader.open()
    reader.read(first, 10)
    reader.settle(first, 3)
    reader.sessions.remove(first)
    first.close(Deadline(5.0))
    reader.delete_before(7)

    with pytest.raises(DataLossDetected) as caught:
        reader.read(reader.open(), 1)

    assert (caught.value.lost_from.partition, caught.value.lost_from.offset) == (0, 3)
    assert caught.value.lost_to == 6
    assert f"records 3 to 6 of {reader.topic}/0" in str(caught.value)


def test_new_group_begins_at_the_first_record_there_is(reader: Reader) -> None:
    """What expired before the group existed is not its loss; its beginning is settled at once."""
    reader.backend.append("in", [b"%d" % i for i in range(10)], 0)
    reader.delete_before(4)

    records = reader.read(reader.open(), 6)

    assert [record.offset for record in records] == [4, 5, 6, 7, 8, 9]
    assert reader.backend.committed("group", "in") == {Partition("in", 0): 4}


def test_added_partition_is_read_from_its_beginning(reader: Reader) -> None:
    """Partitions may be added while services run."""
    session = reader.open()
    reader.backend.append("in", [b"old"], 0)
    reader.read(session, 1)
    admin = AdminClient(reader.backend.settings.admin())
    for future in admin.create_partitions([NewPartitions(reader.topic, 2)]).values():
        future.result(LIMIT_S)
    # A producer of its own: the other's metadata does not know the partition yet.
    reader.another_backend().append("in", [b"new"], 1)

    assert [record.value for record in reader.read(session, 1)] == [b"new"]


def test_header_name_that_is_no_text_does_not_stop_the_session(reader: Reader) -> None:
    """Such a record is delivered with its value, without headers, and says why.

    The plain ones come first: only once the interpreter has specialised the call that reads
    headers could such a record end the process.
    """
    reader.backend.append("in", [b"plain"] * 300, 0)
    session = reader.open()
    reader.read(session, 300)
    append_with_header(reader.backend.settings, reader.topic, b"\xff\xfe", value=b"odd", key=b"k")
    reader.backend.append("in", [b"plain"], 0)

    odd, plain = reader.read(session, 2)

    assert (odd.key, odd.value, odd.headers) == (b"k", b"odd", ())
    assert (odd.bad_header, odd.corrupt) == ("the name of a header is not UTF-8", None)
    assert (plain.value, plain.bad_header) == (b"plain", None)
