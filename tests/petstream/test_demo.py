"""`petstream demo` from its command to its document."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from messages.origin import Origin
from petstream.commands.demo import app
from petstream.demo_report import DemoReport, make_report
from petstream.demo_samples import ExamplesMissingError, draw_samples, load_demo_tasks
from petstream.settings import Settings

TASKS = load_demo_tasks()


def test_samples_are_dealt_in_equal_parts() -> None:
    """Every task has the same number of queries, give or take one, the same for one seed."""
    drawn = draw_samples(TASKS, 100, seed=1)

    counts = Counter(sample.task for sample in drawn)
    assert len(drawn) == 100
    assert max(counts.values()) - min(counts.values()) <= 1
    assert drawn == draw_samples(TASKS, 100, seed=1)
    assert drawn != draw_samples(TASKS, 100, seed=2)


def test_the_demo_has_eight_tasks_of_six_kinds_of_pet() -> None:
    """What README promises of the demo."""
    assert len(TASKS) == 8
    assert len({task.pet_kind for task in TASKS}) == 6
    assert {task.label_kind for task in TASKS} == {"single_label", "multi_label", "tagging"}


def test_a_tagged_sample_expects_spans_of_characters() -> None:
    """Words of the text, as the answer gives them."""
    (slots,) = [task for task in TASKS if task.name == "snips_slots"]

    for sample in slots.samples:
        assert sample.tags is not None
        for start, end, name in sample.tags:
            assert not {" "} & {sample.text[start], sample.text[end - 1]}
            assert (sample.text + " ")[end] == " "
            assert name
    assert sum(len(sample.tags or ()) for sample in slots.samples) > 300


def test_missing_examples_say_where_they_were_looked_for(tmp_path: Path) -> None:
    """An installation without the repository is told what to do."""
    with pytest.raises(ExamplesMissingError, match="PETSTREAM_EXAMPLES_DIR"):
        load_demo_tasks(tmp_path)


def test_an_empty_run_is_no_exact_run_of_something() -> None:
    """The account adds up: nothing asked, nothing lost."""
    report = make_report(
        TASKS, [], Counter[Origin](), {"name": "k", "version": "v"}, steady_qps=1.0
    )

    assert (report.queries, report.lost, report.duplicates) == (0, 0, 0)


@pytest.mark.parametrize(("lost", "duplicates", "answered"), [(1, 0, 10), (0, 1, 10), (0, 0, 9)])
def test_anything_but_one_record_per_query_is_told(
    lost: int, duplicates: int, answered: int
) -> None:
    """A lost query, a second answer and a missing answer each fail the demo."""
    report = DemoReport(10, answered, 0, lost, duplicates, (), {}, 1.0, 1.0, None, {})

    assert not report.is_exact


@pytest.mark.parametrize(
    ("given", "namespace"),
    [
        ([], "petstream"),
        (["--bootstrap-servers", "mine:9092"], r"petstream-demo-[0-9a-f]{8}"),
        (["--bootstrap-servers", "mine:9092", "--namespace", "acme"], "acme"),
    ],
)
def test_on_somebody_s_kafka_the_demo_has_a_namespace_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: list[str], namespace: str
) -> None:
    """Beside services that stay there it would fence them and replace their tasks."""
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "PETSTREAM_BOOTSTRAP_SERVERS", "PETSTREAM_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    served: list[Settings] = []

    def refuse(settings: Settings, _folders: object) -> None:
        served.append(settings)
        raise TimeoutError

    monkeypatch.setattr("petstream.deployment.serve_for_a_while", refuse)

    result = CliRunner().invoke(app, given)

    assert isinstance(result.exception, TimeoutError)
    assert re.fullmatch(namespace, served[0].namespace)


@pytest.mark.kafka
@pytest.mark.slow
def test_the_demo_answers_every_query_exactly_once() -> None:
    """The whole command: its own broker and services, real questions, one JSON document."""
    ended = subprocess.run(
        [sys.executable, "-m", "petstream", "demo", "--queries", "240", "--json"],
        capture_output=True,
        text=True,
        timeout=900,
        env={name: value for name, value in os.environ.items() if "KAFKA" not in name},
    )

    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report["queries"] == report["answered"] == 240
    assert (report["errors"], report["lost"], report["duplicates"]) == (0, 0, 0)
    assert set(report["accuracy"]) == {task.name for task in TASKS}
    assert all(accuracy > 0.4 for accuracy in report["accuracy"].values())
    assert set(report["level_share"]) == {"0", "1"}
    assert report["broker"]["name"] == "Apache Kafka"
    assert report["throughput_qps"] > 0
    assert report["latency_ms"]["p50"] > 0
