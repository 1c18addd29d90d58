"""Processes and brokers that die, on a real broker: every record is answered exactly once.

The log itself is the ledger: `in` holds distinct values, and each must be found once in `out`.
"""

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.backends import KafkaBackend
from tests.contracts.members import LIMIT_S, eventually
from transport.embedded_broker import EmbeddedBroker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
NUM_PARTITIONS = 4


class Fleet:
    """Member processes by slot, and the way to kill them."""

    def __init__(self, backend: KafkaBackend, namespace: str, *, delivery: str) -> None:
        self.backend = backend
        self.namespace = namespace
        self.delivery = delivery
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, slot: str, *, unit_ms: int = 20, kill_at: int | None = None) -> None:
        """Start the process of a slot, with a chosen death or without."""
        bootstrap = self.backend.settings.bootstrap_servers
        arguments = [bootstrap, self.namespace, slot, str(unit_ms), self.delivery]
        if kill_at is not None:
            arguments.append(str(kill_at))
        self.processes[slot] = subprocess.Popen(
            [sys.executable, "-m", "tests.transport.member_process", *arguments],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )

    def signal(self, slot: str, number: signal.Signals) -> None:
        """Send a signal to the process of a slot."""
        self.processes[slot].send_signal(number)

    def restart_dead(self) -> None:
        """Start dead processes anew, as a supervisor does."""
        for slot, process in self.processes.items():
            if process.poll() is not None:
                self.start(slot)

    def stop(self) -> None:
        """End every process, the stopped ones too."""
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Run:
    """Distinct records in `in`, and what became of them."""

    def __init__(self, backend: KafkaBackend, namespace: str, delivery: str) -> None:
        self.backend = backend
        self.fleet = Fleet(backend, namespace, delivery=delivery)
        self.values: set[str] = set()

    def ask(self, num_records: int) -> None:
        """Publish so many further records, in portions, so that a fault falls between them."""
        end = len(self.values) + num_records
        while len(self.values) < end:
            for partition in range(NUM_PARTITIONS):
                first = len(self.values)
                portion = [f"{number:05d}" for number in range(first, min(first + 5, end))]
                self.values.update(portion)
                self.backend.append("in", [value.encode() for value in portion], partition)

    def answers(self) -> Counter[str]:
        """Count the visible answers of each value."""
        return Counter(
            (record.value or b"").decode().split(":", 1)[1]
            for record in self.backend.visible("out")
        )

    def wait_for_answers(self) -> None:
        """Wait until every value has an answer, restarting whatever died."""

        def is_done() -> bool:
            self.fleet.restart_dead()
            return self.values <= set(self.answers())

        eventually(is_done, "every value has an answer", every_s=0.3)

    def wait_for_more_than(self, num_answers: int) -> None:
        """Wait until so many values and one more have an answer, restarting whatever died."""

        def is_done() -> bool:
            self.fleet.restart_dead()
            return len(self.answers()) > num_answers

        eventually(is_done, f"more than {num_answers} answers", every_s=0.1)


@pytest.fixture
def run(broker: str, namespace: str) -> Iterator[Run]:
    """An exactly-once run on the shared broker."""
    yield from _run(broker, namespace, "exactly_once")


def _run(bootstrap_servers: str, namespace: str, delivery: str) -> Iterator[Run]:
    backend = KafkaBackend(bootstrap_servers, namespace)
    backend.create_topic("in", NUM_PARTITIONS)
    backend.create_topic("out", 2)
    run = Run(backend, namespace, delivery)
    yield run
    run.fleet.stop()


def test_killed_between_writing_and_committing(run: Run) -> None:
    """SIGKILL with a full transaction: its records stay in the log, but no reader sees them."""
    run.ask(200)
    # The first commit's duration is unknown before, so it covers two or three units of twenty.
    run.fleet.start("a", kill_at=2)

    run.fleet.processes["a"].wait(LIMIT_S)
    seen_before = run.answers()
    run.wait_for_answers()

    assert run.fleet.processes["a"].poll() is None
    assert 0 < len(seen_before) < 200
    assert run.answers() == Counter(run.values)
    assert len(run.backend.everything("out")) > 200


def test_killed_at_random_moments(run: Run) -> None:
    """Two members, six SIGKILLs at random moments under load: all answered, once."""
    chance = random.Random(20260)
    run.fleet.start("a")
    run.fleet.start("b")

    for _ in range(6):
        num_answered = len(run.answers())  # before asking: the fleet may answer as fast as we ask
        run.ask(150)
        # Until it works again, a kill would only hit its start.
        run.wait_for_more_than(num_answered)
        time.sleep(chance.uniform(0.0, 0.5))  # the moment of the fault, not a wait
        run.fleet.signal(chance.choice("ab"), signal.SIGKILL)
    run.wait_for_answers()

    assert run.answers() == Counter(run.values)


def test_zombie_that_wakes_up_publishes_nothing_twice(run: Run) -> None:
    """SIGSTOP for longer than the group's session: the partitions move, the late work is void."""
    run.ask(50)
    run.fleet.start("a", unit_ms=300)
    run.wait_for_answers()
    run.ask(400)
    run.fleet.start("b", unit_ms=20)
    run.wait_for_more_than(100)

    run.fleet.signal("a", signal.SIGSTOP)
    run.wait_for_answers()  # needs the session to expire, and the other to take over
    run.fleet.signal("a", signal.SIGCONT)
    run.ask(200)
    run.wait_for_answers()

    assert run.answers() == Counter(run.values)


def test_broker_killed_under_load(tmp_path: Path, namespace: str) -> None:
    """SIGKILL of the broker in mid-work, twice: clients ride it out, all answered, once."""
    with EmbeddedBroker(data_dir=tmp_path) as broker:
        for run in _run(broker.bootstrap_servers, namespace, "exactly_once"):
            run.fleet.start("a")
            run.fleet.start("b")
            run.ask(200)
            for _ in range(2):
                asking = threading.Thread(target=run.ask, args=(300,))
                asking.start()
                asking.join(2.0)
                broker.kill()
                broker.restart()
                asking.join()
            run.wait_for_answers()

            assert run.answers() == Counter(run.values)


def test_at_least_once_loses_nothing(broker: str, namespace: str) -> None:
    """Without transactions a kill may repeat answers, but loses none."""
    for run in _run(broker, namespace, "at_least_once"):
        run.ask(400)
        run.fleet.start("a")
        run.wait_for_more_than(50)
        run.fleet.signal("a", signal.SIGKILL)
        run.wait_for_answers()

        assert set(run.answers()) == run.values


def test_term_drains_and_exits_cleanly(run: Run) -> None:
    """SIGTERM under load: exit code 0, and what was taken is answered once."""
    run.ask(600)
    # Half a minute of work, so that much is left when it hears of the end.
    run.fleet.start("a", unit_ms=1000)
    run.wait_for_more_than(50)

    run.fleet.signal("a", signal.SIGTERM)

    assert run.fleet.processes["a"].wait(LIMIT_S) == 0
    answered = run.answers()
    settled = sum(run.backend.committed("group", "in").values())
    assert 50 < len(answered) < 600
    assert set(answered.values()) == {1}
    assert settled == len(answered)
