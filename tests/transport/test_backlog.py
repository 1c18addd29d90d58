"""Outstanding work of a group, on a real broker."""

from collections.abc import Iterator
from time import monotonic

import pytest
from confluent_kafka import Producer

from tests.contracts.backends import KafkaBackend
from tests.contracts.members import Member, eventually
from transport.backlog import Backlog
from transport.settings import KafkaSettings

pytestmark = pytest.mark.kafka


class Pool:
    """A batch topic, its scheduler and its worker group."""

    def __init__(self, backend: KafkaBackend) -> None:
        self.backend = backend
        self.group = backend.name("group")
        backend.create_topic("in", 3)
        backend.create_topic("out", 1)
        config = backend.settings.transactional_producer(backend.name("scheduler"))
        self.producer = Producer(config | {"log_level": 2})
        self.producer.init_transactions(30)
        self.backlog = Backlog(backend.settings, {self.group: backend.name("in")})

    def publish(self, num_batches: int, *, abort: bool = False) -> None:
        """Publish batches, one transaction each, as a scheduler does."""
        for number in range(num_batches):
            self.producer.begin_transaction()
            self.producer.produce(self.backend.name("in"), b"%d" % number, partition=number % 3)
            self.producer.flush(10)
            if abort:
                self.producer.abort_transaction()
            else:
                self.producer.commit_transaction()

    def outstanding(self) -> int:
        """Return the present measurement."""
        return self.backlog.outstanding(self.group) or 0


@pytest.fixture
def pool(broker: str, namespace: str) -> Iterator[Pool]:
    """A pool whose backlog is being measured."""
    pool = Pool(KafkaBackend(broker, namespace))
    pool.backlog.start()
    assert pool.backlog.wait_until_measured(20)
    yield pool
    pool.backlog.close()


def test_nothing_published_is_nothing_outstanding(pool: Pool) -> None:
    """A new pool may take work, though its group does not exist yet."""
    assert pool.backlog.outstanding(pool.group) == 0
    assert pool.backlog.has_room(pool.group, 1)


def test_an_idle_broker_is_left_alone(pool: Pool) -> None:
    """Without questions it is measured every other second, upon one at once."""
    backlog = pool.backlog

    def next_measurement_s() -> float:
        before, began_s = backlog.num_measurements, monotonic()
        eventually(lambda: backlog.num_measurements > before, "measured")
        return monotonic() - began_s

    next_measurement_s()  # of the second in which the test began

    assert next_measurement_s() > 1.0
    backlog.outstanding(pool.group)
    assert next_measurement_s() < 1.0


def test_unread_batches_are_outstanding(pool: Pool) -> None:
    """Without workers everything counts, at most twofold for the markers, and closes the gate."""
    pool.publish(12)

    eventually(lambda: pool.outstanding() >= 12, "twelve outstanding")
    assert pool.outstanding() <= 24
    assert not pool.backlog.has_room(pool.group, 12)
    assert pool.backlog.has_room(pool.group, 25)


def test_settled_batches_are_not_outstanding(pool: Pool) -> None:
    """Once the workers are through, nothing is outstanding, markers or not."""
    pool.publish(12)

    with Member(pool.backend, "a"):
        eventually(lambda: len(pool.backend.visible("out")) == 12, "twelve answers")
        eventually(lambda: pool.outstanding() == 0, "nothing outstanding")
    assert pool.backlog.has_room(pool.group, 1)


def test_aborted_batches_do_not_close_the_gate_for_ever(pool: Pool) -> None:
    """Records that no worker will ever see or settle are recognised as such."""
    with Member(pool.backend, "a"):
        pool.publish(3)
        eventually(lambda: len(pool.backend.visible("out")) == 3, "three answers")
        pool.publish(9, abort=True)

        eventually(lambda: pool.outstanding() > 0, "the dead records are counted at first")
        eventually(lambda: pool.outstanding() == 0, "and found dead")

        pool.publish(3)
        eventually(lambda: len(pool.backend.visible("out")) == 6, "six answers")


def test_real_work_is_never_taken_for_dead(pool: Pool) -> None:
    """Batches behind aborted ones stay outstanding, however long nobody works."""
    pool.publish(6, abort=True)
    pool.publish(3)
    eventually(lambda: pool.outstanding() >= 3, "outstanding")
    measured = set()

    def is_looked_into() -> bool:
        measured.add(pool.outstanding())
        return bool(pool.backlog.num_looks)

    eventually(is_looked_into, "the unmoved range was looked into")
    assert min(measured) >= 3
    assert pool.outstanding() >= 3


def test_unknown_is_not_room() -> None:
    """Without a broker nothing is known, so nothing may be taken."""
    backlog = Backlog(KafkaSettings(bootstrap_servers="127.0.0.1:1"), {"group": "in"})
    backlog.start()

    assert backlog.outstanding("group") is None
    assert not backlog.has_room("group", 1_000_000)
    backlog.close()
