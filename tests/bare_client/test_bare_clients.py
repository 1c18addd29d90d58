"""Clients that know nothing of PetStream get answers from the real services."""

import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.faults.deployment import LARGE_WORKER, SCHEDULER, SMALL_WORKER, Deployment
from transport.deadline import Deadline

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

EXAMPLE = Path(__file__).parents[2] / "examples" / "clients" / "bare_client.py"
TASK = "clinc150"
TEXT = "what is the balance of my checking account"
LABEL = "balance"
ANSWER_LIMIT_S = 60.0

needs_kcat = pytest.mark.skipif(
    shutil.which("kcat") is None, reason="kcat is not on PATH (Debian: apt-get install kcat)"
)


@pytest.fixture(scope="module")
def bootstrap_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A deployment under the default namespace."""
    folder = tmp_path_factory.mktemp("bare")
    services = [SCHEDULER, SMALL_WORKER, LARGE_WORKER]
    with Deployment(folder, services, namespace="petstream") as deployment:
        yield deployment.kafka.bootstrap_servers


def run_example(bootstrap_servers: str, *options: str) -> dict[str, Any]:
    """Ask with the example client; return the answer."""
    ended = subprocess.run(
        [sys.executable, str(EXAMPLE), bootstrap_servers, TASK, TEXT, *options],
        capture_output=True,
        text=True,
        timeout=ANSWER_LIMIT_S,
        check=True,
    )
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


def kcat(*arguments: str, stdin: str = "") -> str:
    """Run kcat; return what it printed."""
    ended = subprocess.run(
        ["kcat", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=ANSWER_LIMIT_S,
        check=True,
    )
    return ended.stdout


def kcat_answer(bootstrap_servers: str, key: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Read the results with kcat until the answer with `key` is there: headers and value."""
    deadline = Deadline(ANSWER_LIMIT_S)
    reading = ["-C", "-b", bootstrap_servers, "-t", "petstream.results", "-o", "beginning"]
    while not deadline.has_passed:
        for line in kcat(*reading, "-e", "-q", "-f", "%k\t%h\t%s\n").splitlines():
            found_key, headers, value = line.split("\t")
            if found_key == key:
                return dict(h.split("=", 1) for h in headers.split(",")), json.loads(value)
        time.sleep(0.2)
    raise TimeoutError(f"no answer to {key}")


def test_bare_text_is_answered_in_json(bootstrap_servers: str) -> None:
    """A text and a header `task`: nothing else is needed."""
    answer = run_example(bootstrap_servers)

    assert answer["labels"] == [LABEL]
    assert answer["task"] == TASK


def test_a_cloudevent_is_answered(bootstrap_servers: str) -> None:
    """The task is the event's subject."""
    answer = run_example(bootstrap_servers, "--cloudevent")

    assert answer["labels"] == [LABEL]


def test_the_answer_to_a_cloudevent_is_a_cloudevent(bootstrap_servers: str) -> None:
    """Of its own id, source and type, caused by the question; JSON in, JSON out."""
    key = uuid.uuid4().hex
    question: dict[str, str | bytes | None] = {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": key,
        "ce_source": "urn:test",
        "ce_type": "com.example.question",
        "ce_subject": TASK,
        "ce_correlationid": "order-17",
    }
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    producer.produce("petstream.queries", json.dumps({"text": TEXT}), key, headers=question)
    producer.flush()

    headers, answer = read_answer(bootstrap_servers, key.encode())

    assert answer["labels"] == [LABEL]
    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_type"] == "dev.petstream.inference.result.v1"
    assert headers["ce_causationid"] == key
    assert headers["ce_correlationid"] == "order-17"
    assert headers["ce_id"] != key
    assert headers["ce_source"] != "urn:test"


def read_answer(bootstrap_servers: str, key: bytes) -> tuple[dict[str, str], dict[str, Any]]:
    """Read the results with a plain consumer until the answer with `key` is there."""
    reader = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "test"})
    topic = reader.list_topics("petstream.results").topics["petstream.results"]
    reader.assign([TopicPartition("petstream.results", p, 0) for p in topic.partitions])
    deadline = Deadline(ANSWER_LIMIT_S)
    while not deadline.has_passed:
        record = reader.poll(1.0)
        if record is not None and record.error() is None and record.key() == key:
            headers: Any = record.headers()
            value: Any = record.value()
            reader.close()
            return {name: content.decode() for name, content in headers}, json.loads(value)
    raise TimeoutError(f"no answer to {key!r}")


@needs_kcat
def test_kcat_asks_in_one_line(bootstrap_servers: str) -> None:
    """As docs/bare-clients.md shows it."""
    key = f"order-{uuid.uuid4().hex}"
    asking = ["-P", "-b", bootstrap_servers, "-t", "petstream.queries", "-k", key]

    kcat(*asking, "-H", f"task={TASK}", stdin=TEXT)
    headers, answer = kcat_answer(bootstrap_servers, key)

    assert answer["labels"] == [LABEL]
    assert answer["id"] == key
    assert headers["petstream-kind"] == "result"
    assert headers["content-type"] == "application/json"


@needs_kcat
def test_kcat_sends_a_cloudevent(bootstrap_servers: str) -> None:
    """Headers are all that makes one."""
    key = f"order-{uuid.uuid4().hex}"
    asking = ["-P", "-b", bootstrap_servers, "-t", "petstream.queries", "-k", key]
    event = {
        "ce_specversion": "1.0",
        "ce_id": key,
        "ce_source": "urn:kcat",
        "ce_type": "com.example.question",
        "ce_subject": TASK,
        "content-type": "application/json",
    }
    headers_given = [part for name in event for part in ("-H", f"{name}={event[name]}")]

    kcat(*asking, *headers_given, stdin=json.dumps({"text": TEXT}))
    headers, answer = kcat_answer(bootstrap_servers, key)

    assert answer["labels"] == [LABEL]
    assert headers["ce_causationid"] == key


@needs_kcat
def test_kcat_is_told_what_is_wrong(bootstrap_servers: str) -> None:
    """An unknown task is answered with an error that a script can read from the headers."""
    key = f"order-{uuid.uuid4().hex}"
    asking = ["-P", "-b", bootstrap_servers, "-t", "petstream.queries", "-k", key]

    kcat(*asking, "-H", "task=no-such-task", stdin=TEXT)
    headers, answer = kcat_answer(bootstrap_servers, key)

    assert headers["petstream-kind"] == "error"
    assert headers["petstream-error-code"] == "TASK_UNKNOWN"
    assert answer["error"]["status"] == 404
