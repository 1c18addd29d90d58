"""The tasks topic on a real broker: no change is lost, whoever else writes, dies or is slow."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from messages.errors import MessageError
from messages.task_event import TaskEvent, TaskLevel, TaskReference, TaskRevision
from messages.task_event_codec import encode_task_event
from messages.topics import TopicNames
from petstream.task_topic import TaskTopic, TaskTopicBusy
from tasks.errors import UnknownTask
from tasks.registry import add_revision, retire
from tests.contracts.members import eventually
from transport.errors import BrokerUnreachable, TopicConfigError
from transport.settings import KafkaSettings
from transport.topics import create_topics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

OpenTopic = Callable[[], TaskTopic]


@pytest.fixture
def kafka(broker: str, namespace: str) -> KafkaSettings:
    """Settings of a broker that has the namespace's topics."""
    settings = KafkaSettings(bootstrap_servers=broker)
    create_topics(settings, TopicNames(namespace), partitions=1)
    return settings


@pytest.fixture
def open_topic(kafka: KafkaSettings, namespace: str) -> OpenTopic:
    """Return a function that opens the topic as another process would."""
    return lambda: TaskTopic(kafka, TopicNames(namespace), timeout_s=60)


def revision(name: str, number: int) -> TaskRevision:
    """Return a revision."""
    return TaskRevision(
        TaskReference(name, number, f"sha256:{number:064x}"),
        "single_label",
        3,
        False,
        (TaskLevel(0, "minilm-l3", "lora", 128),),
    )


def add_next(name: str) -> Callable[[TaskEvent | None], TaskEvent]:
    """Return a change that adds the revision after the last."""
    return lambda now: add_revision(now, revision(name, len(now.revisions) + 1 if now else 1))


def publish(kafka: KafkaSettings, namespace: str, key: bytes, value: bytes | None) -> None:
    """Write to the topic as somebody who knows no rules."""
    errors: list[KafkaError] = []
    producer = Producer(kafka.query_producer())
    producer.produce(
        TopicNames(namespace).tasks,
        value,
        key=key,
        on_delivery=lambda error, _: errors.append(error) if error else None,
    )
    assert producer.flush(30) == 0
    assert errors == []


def numbers(event: TaskEvent) -> list[int]:
    """Return the revisions of an event."""
    return [known.reference.revision for known in event.revisions]


def test_a_change_is_read_by_others(open_topic: OpenTopic) -> None:
    """At once, and by name."""
    assert open_topic().read() == {}

    written = open_topic().change("a", add_next("a"))
    open_topic().change("b", add_next("b"))

    assert open_topic().read() == {"a": written, "b": add_next("b")(None)}


def test_concurrent_writers_lose_nothing(open_topic: OpenTopic) -> None:
    """Twelve additions of four writers: twelve revisions."""
    problems: list[Exception] = []

    def write() -> None:
        try:
            for _ in range(3):
                open_topic().change("a", add_next("a"))
        except Exception as error:  # noqa: BLE001 - reported by the main thread
            problems.append(error)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert problems == []
    assert numbers(open_topic().read()["a"]) == list(range(1, 13))


def test_a_slow_writer_starts_again_on_the_newer_state(open_topic: OpenTopic) -> None:
    """Another change between its reading and its writing is not undone."""
    seen: list[TaskEvent | None] = []

    def slowly(now: TaskEvent | None) -> TaskEvent:
        seen.append(now)
        if len(seen) == 1:
            open_topic().change("a", add_next("a"))
        return add_next("a")(now)

    result = open_topic().change("a", slowly)

    assert seen == [None, add_next("a")(None)]
    assert numbers(result) == [1, 2]
    assert open_topic().read() == {"a": result}


def test_whoever_reads_after_a_change_sees_it(
    open_topic: OpenTopic, kafka: KafkaSettings, namespace: str
) -> None:
    """Also one who reads at once: a commit may return before its records are shown."""
    topic = open_topic()
    reader = Consumer(kafka.reader())
    source = TopicPartition(TopicNames(namespace).tasks, 0)
    ends = []
    for number in range(1, 16):
        topic.change(f"task-{number}", add_next(f"task-{number}"))
        ends.append(reader.get_watermark_offsets(source, timeout=10)[1])
    reader.close()

    # Each change is a record and the marker that ends its transaction.
    assert ends == list(range(2, 32, 2))


def test_a_change_that_is_refused_writes_nothing(open_topic: OpenTopic) -> None:
    """The error of the rule comes through as it is."""
    with pytest.raises(UnknownTask):
        open_topic().change("a", lambda now: retire(now, "a"))

    assert open_topic().read() == {}


def test_no_change_writes_nothing(
    open_topic: OpenTopic, kafka: KafkaSettings, namespace: str
) -> None:
    """Repeating a command does not make the log grow."""
    topic = TopicPartition(TopicNames(namespace).tasks, 0)
    reader = Consumer(kafka.reader())
    open_topic().change("a", lambda now: add_revision(now, revision("a", 1)))
    # The record and the marker of its transaction, which readers see some time after the commit.
    before = (0, 2)
    eventually(
        lambda: reader.get_watermark_offsets(topic, timeout=10) == before, "the change is seen"
    )

    again = open_topic().change("a", lambda now: add_revision(now, revision("a", 1)))

    after = reader.get_watermark_offsets(topic, timeout=10)
    reader.close()
    assert numbers(again) == [1]
    assert after == before


def test_a_killed_writer_blocks_nobody(
    open_topic: OpenTopic, kafka: KafkaSettings, namespace: str
) -> None:
    """Killed with its record sent and its transaction open: invisible, and out of the way."""
    script = textwrap.dedent(
        f"""
        import os, signal
        from confluent_kafka import Producer
        from messages.topics import TopicNames
        from petstream import task_topic
        from tests.petstream.test_task_topic import add_next
        from transport.settings import KafkaSettings

        class Dying(Producer):
            def commit_transaction(self, *_):
                self.flush()
                os.kill(os.getpid(), signal.SIGKILL)

        task_topic.Producer = Dying
        topic = task_topic.TaskTopic(
            KafkaSettings(bootstrap_servers={kafka.bootstrap_servers!r}), TopicNames({namespace!r})
        )
        topic.change("a", add_next("a"))
        """
    )
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", script], cwd=root, env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL

    after = open_topic().change("b", add_next("b"))

    assert open_topic().read() == {"b": after}


def test_foreign_records_are_passed_over(
    open_topic: OpenTopic, kafka: KafkaSettings, namespace: str
) -> None:
    """One bad publisher does not take the list away; the bad task itself is not overwritten."""
    good = open_topic().change("good", add_next("good"))
    publish(kafka, namespace, b"bad", b"\x00 no event")
    publish(kafka, namespace, b"\xff\xfe", b"{}")
    publish(kafka, namespace, b"other", encode_task_event(good).value)

    assert open_topic().read() == {"good": good}
    with pytest.raises(MessageError):
        open_topic().change("bad", add_next("bad"))


def test_a_deleted_task_is_gone(
    open_topic: OpenTopic, kafka: KafkaSettings, namespace: str
) -> None:
    """A tombstone is how compaction forgets a name."""
    open_topic().change("a", add_next("a"))
    publish(kafka, namespace, b"a", None)

    assert open_topic().read() == {}
    assert numbers(open_topic().change("a", add_next("a"))) == [1]


def test_a_missing_topic_is_told(broker: str) -> None:
    """With the command that makes it, before any waiting."""
    topic = TaskTopic(KafkaSettings(bootstrap_servers=broker), TopicNames("nowhere"), timeout_s=9)

    with pytest.raises(TopicConfigError, match="petstream topics create"):
        topic.read()
    with pytest.raises(TopicConfigError, match="petstream topics create"):
        topic.change("a", add_next("a"))


def test_an_unreachable_broker_is_told() -> None:
    """Within the time limit."""
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")

    with pytest.raises(BrokerUnreachable):
        TaskTopic(kafka, TopicNames(), timeout_s=0.5).read()


def test_endless_competition_is_told(
    open_topic: OpenTopic, kafka: KafkaSettings, namespace: str
) -> None:
    """A writer that is always overtaken gives up with a typed error."""
    patient = open_topic()
    hurried = TaskTopic(kafka, TopicNames(namespace), timeout_s=3)

    def always_overtaken(now: TaskEvent | None) -> TaskEvent:
        patient.change("b", add_next("b"))
        return add_next("a")(now)

    with pytest.raises((TaskTopicBusy, BrokerUnreachable)):
        hurried.change("a", always_overtaken)

    assert set(patient.read()) == {"b"}
