"""Following a compacted topic, on a real broker."""

import threading
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.contracts.backends import KafkaBackend
from tests.contracts.members import eventually
from transport.errors import TableFollowerFailed
from transport.table import TableFollower

pytestmark = pytest.mark.kafka


class Table:
    """What a follower applied."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes | None] = {}
        self.threads: set[str] = set()

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Apply one record."""
        self.rows[key] = value
        self.threads.add(threading.current_thread().name)


class Topic:
    """A topic of two partitions, written in transactions."""

    def __init__(self, backend: KafkaBackend) -> None:
        backend.create_topic("table", 2)
        self.backend = backend
        self.name = backend.name("table")
        config = backend.settings.transactional_producer(backend.name("writer"))
        self.producer = Producer(config | {"log_level": 2})
        self.producer.init_transactions(30)

    def put(self, key: bytes, value: bytes | None, *, abort: bool = False) -> None:
        """Write one record in a transaction of its own."""
        self.producer.begin_transaction()
        self.producer.produce(self.name, value, key)
        self.producer.flush(10)
        if abort:
            self.producer.abort_transaction()
        else:
            self.producer.commit_transaction()

    def wait_until_visible(self, num_offsets: int) -> None:
        """Wait until readers see the partitions up to so many offsets, all taken together.

        A commit returns once it is decided; each partition shows its records only when the
        transaction's marker is written there, which the broker does afterwards.
        """
        reader = Consumer(self.backend.settings.reader(start="earliest"))
        partitions = [TopicPartition(self.name, partition) for partition in range(2)]

        def visible() -> int:
            return sum(reader.get_watermark_offsets(each, timeout=10)[1] for each in partitions)

        try:
            eventually(lambda: visible() >= num_offsets, f"{num_offsets} offsets to be visible")
        finally:
            reader.close()

    def follow(self, table: Table) -> TableFollower:
        """Return a follower."""
        return TableFollower(self.backend.settings, self.name, table.apply)


@pytest.fixture
def topic(broker: str, namespace: str) -> Topic:
    """A topic on the real broker."""
    return Topic(KafkaBackend(broker, namespace))


@pytest.fixture
def table() -> Table:
    """An empty table."""
    return Table()


@pytest.fixture
def follower(topic: Topic, table: Table) -> Iterator[TableFollower]:
    """A follower of the topic, started."""
    for number in range(20):
        topic.put(b"k%d" % (number % 5), b"%d" % number)
    follower = topic.follow(table)
    follower.start()
    yield follower
    follower.close()


def test_begins_with_everything(follower: TableFollower, table: Table) -> None:
    """Once current, the table holds the last value of every key, applied on one thread."""
    follower.wait_until_current(20)

    assert table.rows == {b"k%d" % i: b"%d" % (15 + i) for i in range(5)}
    assert len(table.threads) == 1


def test_current_means_now(follower: TableFollower, topic: Topic, table: Table) -> None:
    """Waiting again waits for what was written in between; a deletion is told as None."""
    follower.wait_until_current(20)
    topic.put(b"k0", None)
    topic.put(b"new", b"x")

    follower.wait_until_current(20)

    assert table.rows[b"k0"] is None
    assert table.rows[b"new"] == b"x"


def test_follows_without_being_asked(follower: TableFollower, topic: Topic, table: Table) -> None:
    """Records arrive by themselves."""
    follower.wait_until_current(20)
    topic.put(b"later", b"x")

    eventually(lambda: table.rows.get(b"later") == b"x", "the record")


def test_aborted_records_are_not_applied(
    follower: TableFollower, topic: Topic, table: Table
) -> None:
    """And they do not keep the table from being current."""
    topic.put(b"never", b"x", abort=True)

    follower.wait_until_current(20)

    assert b"never" not in table.rows


def test_error_of_apply_is_reported(topic: Topic) -> None:
    """A record that cannot be applied ends the follower, and everyone who waits hears of it."""

    def fail(_key: bytes, _value: bytes | None) -> None:
        raise ZeroDivisionError("bad record")

    topic.put(b"k", b"v")
    follower = TableFollower(topic.backend.settings, topic.name, fail)
    follower.start()

    with pytest.raises(TableFollowerFailed, match="bad record"):
        follower.wait_until_current(20)
    with pytest.raises(TableFollowerFailed, match="restart the process"):
        follower.raise_if_failed()
    follower.close()


def test_missing_topic_is_reported(broker: str, namespace: str) -> None:
    """A topic that does not exist is an error that names it, not an endless wait."""
    settings = KafkaBackend(broker, namespace).settings
    follower = TableFollower(settings, f"{namespace}.nowhere", lambda _k, _v: None)
    follower.start()

    with pytest.raises(TableFollowerFailed, match=f"topic {namespace}.nowhere"):
        follower.wait_until_current(30)
    follower.close()


def test_waiting_has_a_limit(topic: Topic, table: Table) -> None:
    """A follower that was never started is not current."""
    with pytest.raises(TimeoutError, match="table"):
        topic.follow(table).wait_until_current(0.05)


def test_the_end_is_asked_for_when_all_that_is_known_was_read(
    topic: Topic, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each asking waits behind a fetch: in between, ten thousand records take ten seconds."""
    rows_when_asked: list[int] = []

    class WatchedConsumer(Consumer):
        """Notes how far the table is when an end is asked for."""

        def get_watermark_offsets(
            self, partition: TopicPartition, timeout: float = 0, cached: bool = False
        ) -> tuple[int, int]:
            """Ask as a consumer does."""
            rows_when_asked.append(len(table.rows))
            return super().get_watermark_offsets(partition, timeout, cached)

    monkeypatch.setattr("transport.table.Consumer", WatchedConsumer)
    topic.producer.begin_transaction()
    for number in range(3_000):
        topic.producer.produce(topic.name, b"1", b"%d" % number)
        topic.producer.poll(0)
    topic.producer.commit_transaction()
    topic.wait_until_visible(3_000)
    follower = topic.follow(table)
    follower.start()

    follower.wait_until_current(30)

    assert set(rows_when_asked) == {3_000}
    follower.close()
