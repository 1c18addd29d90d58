"""`query`, `produce` and `results` as processes, on a real broker with a stand-in service."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from messages.errors import ErrorAnswer, Reason
from messages.origin import Origin
from messages.query_codec import IncomingQuery
from messages.result import Result
from messages.topics import TopicNames
from tests.producers.stand_in import StandIn, silent, twice
from transport.settings import KafkaSettings
from transport.topics import create_topics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

Ended = subprocess.CompletedProcess[str]


@pytest.fixture
def service(broker: str, namespace: str) -> Iterator[StandIn]:
    """A service that answers with the text as the label."""
    settings = KafkaSettings(bootstrap_servers=broker)
    create_topics(settings, TopicNames(namespace), partitions=3)
    with StandIn(broker, namespace) as stand_in:
        yield stand_in


class Commands:
    """Runs `petstream ...` against the test's namespace."""

    def __init__(self, broker: str, namespace: str, folder: Path) -> None:
        self._environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": broker,
            "PETSTREAM_NAMESPACE": namespace,
        }
        self.file = folder / "queries.jsonl"

    def __call__(self, *arguments: str, stdin: str = "") -> Ended:
        """Run one command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "petstream", *arguments],
            capture_output=True,
            text=True,
            input=stdin,
            env=self._environment,
            check=False,
        )

    def write(self, texts: Sequence[str]) -> str:
        """Write a file of queries, tasks in turn; return its path."""
        rows = [{"task": f"task-{n % 2}", "text": text} for n, text in enumerate(texts)]
        self.file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(self.file)


@pytest.fixture
def petstream(broker: str, namespace: str, tmp_path: Path, service: StandIn) -> Commands:
    """The command line, with a service behind it."""
    return Commands(broker, namespace, tmp_path)


def refuse(incoming: IncomingQuery, origin: Origin) -> list[Result | ErrorAnswer]:
    """A service that knows no task."""
    query = incoming.query
    reason = Reason.TASK_UNKNOWN
    return [ErrorAnswer(query.id, query.task, origin, reason, "no such task", "validate")]


def test_query_prints_the_answer(petstream: Commands, service: StandIn) -> None:
    """For people in a line, for scripts as the wire's JSON; parameters are passed on."""
    said = petstream("query", "--task", "t", "Where is it?")
    document = petstream(
        "query", "-t", "t@2", "One", "--pair", "Two", "--level", "1", "--top-k", "3", "--json"
    )

    assert said.returncode == 0
    assert said.stdout.startswith("Where is it? 0.750 (level 0)")
    assert json.loads(document.stdout)["labels"] == ["One"]
    asked = service.queries[1].query
    assert (asked.task, asked.text_pair) == ("t@2", "Two")
    assert (asked.parameters.level, asked.parameters.top_k) == (1, 3)


def test_an_error_answer_is_exit_code_1_and_one_line(petstream: Commands, service: StandIn) -> None:
    """With --json the answer is on standard output all the same."""
    service.behaviour = refuse

    ended = petstream("query", "--task", "t", "text", "--json")

    assert ended.returncode == 1
    assert ended.stderr == "petstream: TASK_UNKNOWN: no such task\n"
    assert json.loads(ended.stdout)["error"]["reason"] == "TASK_UNKNOWN"


def test_query_does_not_wait_for_ever(petstream: Commands, service: StandIn) -> None:
    """It says where the query stands."""
    service.behaviour = silent

    ended = petstream("query", "--task", "t", "text", "--timeout", "3")

    assert ended.returncode == 1
    assert "AnswerTimeout" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_produce_publishes_a_file(petstream: Commands, service: StandIn) -> None:
    """Every line, once."""
    texts = [f"text {n}" for n in range(50)]

    ended = petstream("produce", petstream.write(texts), "--json")

    assert ended.returncode == 0
    assert json.loads(ended.stdout) == {"command": "produce", "published": 50, "errors": {}}
    answers = petstream("results", "--from-beginning", "--idle", "10", "--json")
    labels = [json.loads(line)["labels"][0] for line in answers.stdout.splitlines()]
    assert sorted(labels) == sorted(texts)


def test_produce_reads_standard_input(petstream: Commands, service: StandIn) -> None:
    """Line by line: what stands before a bad line is published, and that is said."""
    ended = petstream("produce", "-", "--task", "t", stdin='{"text": "one"}\n{"text": 2}\n')

    assert ended.returncode == 2
    assert "line 2" in ended.stderr
    assert "lines before it were published" in ended.stderr


def test_a_file_with_a_bad_line_is_not_published_at_all(
    petstream: Commands, service: StandIn
) -> None:
    """The line is named."""
    petstream.write(["one", "two", " "])

    ended = petstream("produce", str(petstream.file))

    assert ended.returncode == 2
    assert "line 3" in ended.stderr
    assert not service.queries


def test_produce_waits_and_reports(petstream: Commands, service: StandIn, tmp_path: Path) -> None:
    """The report counts answers, and the answers are written down."""
    answers = tmp_path / "answers.jsonl"
    texts = [f"text {n}" for n in range(40)]

    ended = petstream(
        *("produce", petstream.write(texts), "--wait", "--rate", "200", "--json"),
        *("--answers", str(answers)),
    )

    report = json.loads(ended.stdout)
    assert ended.returncode == 0
    assert (report["queries"], report["answered"], report["unanswered"]) == (40, 40, 0)
    assert report["levels"] == {"0": 40}
    assert {name: task["answered"] for name, task in report["tasks"].items()} == {
        "task-0": 20,
        "task-1": 20,
    }
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p999"]
    labels = [json.loads(line)["labels"][0] for line in answers.read_text().splitlines()]
    assert sorted(labels) == sorted(texts)


def test_what_got_no_result_is_exit_code_1(petstream: Commands, service: StandIn) -> None:
    """Unanswered queries leave no finite worst latency: null in JSON."""
    service.behaviour = silent

    ended = petstream("produce", petstream.write(["one"]), "--wait", "--timeout", "3", "--json")

    report = json.loads(ended.stdout)
    assert ended.returncode == 1
    assert (report["answered"], report["unanswered"]) == (0, 1)
    assert report["latency_ms"]["p50"] is None


def test_a_drawn_load_repeats_with_its_seed(petstream: Commands, service: StandIn) -> None:
    """The same texts in the same shares, twice."""
    file = petstream.write([f"text {n}" for n in range(10)])
    options = ("--draw", "60", "--rate", "500", "--zipf", "1.5", "--seed", "3", "--wait", "--json")

    reports = [json.loads(petstream("produce", file, *options).stdout) for _ in range(2)]

    assert [report["answered"] for report in reports] == [60, 60]
    texts = [incoming.query.text for incoming in service.queries]
    assert sorted(texts[:60]) == sorted(texts[60:])
    tasks = [report["tasks"] for report in reports]
    assert tasks[0]["task-0"]["answered"] == tasks[1]["task-0"]["answered"] > 30


def test_results_follows_each_query_once(petstream: Commands, service: StandIn) -> None:
    """Of one task, up to a limit, although every answer is published twice."""
    service.behaviour = twice
    petstream("produce", petstream.write([f"text {n}" for n in range(20)]), "--wait")

    ended = petstream(
        *("results", "--from-beginning", "--task", "task-1", "--idle", "10", "--limit", "50")
    )

    lines = ended.stdout.splitlines()
    assert ended.returncode == 0
    assert len({line.split()[0] for line in lines}) == len(lines) == 10
    assert all("task-1" in line for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        ["query", "text"],
        ["produce", "missing.jsonl"],
        ["produce", "-", "--draw", "5"],
        ["produce", "-", "--answers", "file"],
        ["results", "--limit", "0"],
    ],
)
def test_wrong_use_is_exit_code_2(petstream: Commands, arguments: list[str]) -> None:
    """Nothing is published."""
    assert petstream(*arguments).returncode == 2
