"""`petstream up`, `status`, `tasks`, `query` and `down` together, as a user calls them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from messages.query import QueryParameters
from messages.result import Result
from producers.client import Client
from producers.connection import Connection
from producers.errors import ClientError, TaskError
from producers.new_query import new_query
from transport.settings import KafkaSettings

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
SMALL_LEVEL = QueryParameters(level=0)
LIMIT_S = 300.0

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


class Installation:
    """One user's machine: the command line with folders of its own."""

    def __init__(self, folder: Path, broker: str, namespace: str) -> None:
        self.environment = {
            **os.environ,
            "PETSTREAM_STATE_DIR": str(folder / "state"),
            "PETSTREAM_TASKS_DIR": str(folder / "tasks"),
            "PETSTREAM_NAMESPACE": namespace,
            "KAFKA_BOOTSTRAP_SERVERS": broker,
        }
        self.connection = Connection(KafkaSettings(bootstrap_servers=broker), namespace)

    def petstream(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "petstream", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def status(self) -> dict[str, Any]:
        """Return what `status --json` prints."""
        document: dict[str, Any] = json.loads(self.petstream("status", "--json").stdout)
        return document

    def process(self, level: int) -> dict[str, Any]:
        """Return the status of the worker of a level."""
        (found,) = [p for p in self.status()["processes"] if p["level"] == level]
        return dict(found)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, broker: str) -> Iterator[Installation]:
    installed = Installation(tmp_path_factory.mktemp("services"), broker, "services")
    started = installed.petstream("up", "--detach")
    assert started.returncode == 0, started.stderr
    added = installed.petstream("tasks", "add", str(EXAMPLES / "sms_spam"))
    assert added.returncode == 0, added.stderr
    yield installed
    stopped = installed.petstream("down")
    assert stopped.returncode == 0, stopped.stderr
    assert installed.petstream("status").returncode == 1


def test_status_names_every_process(installation: Installation) -> None:
    """A scheduler and a worker of each level are ready, exactly once."""
    limit_s = time.monotonic() + LIMIT_S
    status = installation.status()
    while {process["state"] for process in status["processes"]} != {"ready"}:
        assert time.monotonic() < limit_s, status
        status = installation.status()

    roles = [(process["role"], process["level"]) for process in status["processes"]]
    assert roles == [("scheduler", None), ("worker", 0), ("worker", 1)]
    assert status["state"] == "serving"
    assert status["delivery"] == "exactly_once"
    assert status["namespace"] == "services"


def test_a_second_up_is_refused(installation: Installation) -> None:
    """Two supervisors of one state folder would fence each other for ever."""
    second = installation.petstream("up", "--detach")

    assert second.returncode == 1
    assert "petstream down" in second.stderr


def test_a_question_is_answered(installation: Installation) -> None:
    """`petstream query` prints the label."""
    asked = installation.petstream(
        "query", "--task", "sms_spam", "WINNER! Claim your 900 pound prize, call 09061701461 now"
    )

    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith("spam")


def test_every_kind_of_answer_by_the_committed_tasks(installation: Installation) -> None:
    """Spans of characters, several labels, a value of a pair; each from the command line too."""
    tasks = ("snips_slots", "wnut17", "nlupp", "stsb")
    added = installation.petstream("tasks", "add", *(str(EXAMPLES / task) for task in tasks))
    assert added.returncode == 0, added.stderr

    def ask(task: str, *words: str) -> dict[str, Any]:
        asked = installation.petstream("query", "--task", task, "--json", *words)
        assert asked.returncode == 0, asked.stderr
        return dict(json.loads(asked.stdout))

    slots = "add  Purple Rain to my workout playlist"
    spans = {(slots[first:end], name) for first, end, name in ask("snips_slots", slots)["tags"]}
    assert ("my", "playlist_owner") in spans
    assert ("workout", "playlist") in spans
    entities = "We flew from Berlin to London."
    named = {(entities[a:b], name) for a, b, name in ask("wnut17", entities)["tags"]}
    assert ("Berlin", "location") in named
    assert set(ask("nlupp", "why was my card declined")["labels"]) >= {"card", "why"}
    pair = ("A man is playing a guitar.", "--pair")
    alike = ask("stsb", *pair, "A man plays the guitar.")
    apart = ask("stsb", *pair, "The stock market fell on Monday.")
    assert alike["value"] > 3.5
    assert apart["value"] < 1.5
    assert alike["level"] == apart["level"] == 1


def test_a_new_task_is_answered_within_a_second_and_costs_no_other(
    installation: Installation,
) -> None:
    """From the end of `tasks add` on; queries of another task go on meanwhile, all answered.

    The best of several new tasks counts: a stall of this machine is not the services'.
    """
    stop = threading.Event()
    outcomes: list[Result | ClientError] = []

    def ask_the_other_task() -> None:
        with Client(installation.connection, timeout_s=LIMIT_S) as client:
            while not stop.is_set():
                question = new_query("sms_spam", "see you at six", parameters=SMALL_LEVEL)
                outcomes.extend(client.ask_many([question]))

    background = threading.Thread(target=ask_the_other_task)
    background.start()
    try:
        with Client(installation.connection, timeout_s=LIMIT_S) as client:
            took_s = []
            for task in ("clinc150", "banking77", "snips", "hwu64"):
                added = installation.petstream("tasks", "add", str(EXAMPLES / task))
                assert added.returncode == 0, added.stderr
                served_from_s = time.monotonic()
                answer = client.ask(new_query(task, "what is my balance", parameters=SMALL_LEVEL))
                took_s.append(time.monotonic() - served_from_s)
                assert answer.labels == ("balance",) or task != "clinc150"
                if took_s[-1] < 1.0:
                    break
    finally:
        stop.set()
        background.join()

    assert min(took_s) < 1.0
    assert outcomes
    assert all(isinstance(outcome, Result) for outcome in outcomes)


def test_an_alias_and_a_retired_task(installation: Installation) -> None:
    """`name:alias` answers; a retired task's queries get their typed error, until it is back."""
    folder = str(EXAMPLES / "sms_spam")
    aliased = installation.petstream("tasks", "alias", "sms_spam", "live", "1")
    with Client(installation.connection, timeout_s=LIMIT_S) as client:
        by_alias = client.ask(new_query("sms_spam:live", "see you", parameters=SMALL_LEVEL))
        retired = installation.petstream("tasks", "retire", "sms_spam")
        with pytest.raises(TaskError, match="TASK_RETIRED"):
            client.ask(new_query("sms_spam", "see you"))
        back = installation.petstream("tasks", "add", folder)
        again = client.ask(new_query("sms_spam", "see you", parameters=SMALL_LEVEL))

    assert [aliased.returncode, retired.returncode, back.returncode] == [0, 0, 0]
    assert by_alias.task == again.task == "sms_spam"


def test_a_killed_worker_is_started_again_and_nothing_is_lost(installation: Installation) -> None:
    """Queries published while the worker is dead are answered by the next one, once."""
    killed = installation.process(0)
    os.kill(killed["pid"], signal.SIGKILL)
    with Client(installation.connection, timeout_s=LIMIT_S) as client:
        questions = [
            new_query("sms_spam", f"message {number}", parameters=SMALL_LEVEL)
            for number in range(50)
        ]

        outcomes = list(client.ask_many(questions))

    assert all(isinstance(outcome, Result) for outcome in outcomes)
    restarted = installation.process(0)
    assert restarted["pid"] != killed["pid"]
    assert restarted["restarts"] == killed["restarts"] + 1
