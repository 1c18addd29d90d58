"""A task is updated while it is being asked: each answer is one revision's, whole."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from socket import gethostname

import numpy as np
import pytest
from tokenizers import Tokenizer

from messages.query import QueryParameters
from messages.result import Result
from petstream.commands.worker import recent_tasks_file
from petstream.kafka_connection import kafka_settings
from petstream.settings import Settings, load_settings
from petstream.task_registry import TaskRegistry, task_registry
from producers.client import Client
from producers.connection import Connection
from producers.new_query import new_query
from tasks.artifact import Artifact
from tasks.store import TaskStore
from tests.kept_figures import kept_figures
from tests.petstream.single_level import single_level_services, single_level_settings
from tests.workers.stored_tasks import add_task, until
from workers.backbone import Backbone
from workers.backbone_store import BackboneStore
from workers.cascade import judge
from workers.engine import Engine, EngineRow
from workers.recent_tasks import RecentTasks

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

TASK = "weather"
NUM_REVISIONS = 5
TEXTS = ("will it rain tomorrow", "how warm is the sea in June", "is a storm coming")
ANSWER_LIMIT_S = 120.0
TOLERANCE = 1e-4
ALL_LABELS = QueryParameters(top_k=7)

Scores = dict[str, float]


@pytest.fixture
def settings(broker: str, namespace: str, tmp_path: Path) -> Settings:
    """Settings of a namespace whose topics are there."""
    return single_level_settings(broker, namespace, tmp_path, partitions=2)


@pytest.fixture(scope="module")
def engine() -> Engine:
    """An engine of the test's own, which knows what each revision must answer."""
    folder = BackboneStore(load_settings().models_dir).fetch("minilm-l3")
    return Engine(Backbone.load(folder), threads=1, figures_file=kept_figures())


@pytest.fixture
def updates(settings: Settings, engine: Engine, tmp_path: Path) -> Iterator["Updates"]:
    """A task of one revision that is served, and what updates it."""
    updates = Updates(task_registry(settings), engine, tmp_path / "made")
    updates.register_next()
    updates.let_stable_mean(1)
    with single_level_services(settings, "--pin", TASK) as supervisor:
        updates.stop_services = supervisor.stop
        log = (settings.state_dir / "logs" / "worker-0-0.log").read_text()
        assert f"{TASK}@1, host memory: loaded" in log, "a pinned task is there before it is asked"
        yield updates


@dataclass(slots=True)
class Updates:
    """Registers revisions that prefer another label each, and knows what they answer."""

    registry: TaskRegistry
    engine: Engine
    folder: Path
    expected: dict[tuple[int, str], Scores] = field(default_factory=dict)
    """(revision, text) -> the probability of each label."""
    was_stable: set[int] = field(default_factory=set)
    stop_services: Callable[[], None] = lambda: None

    def register_next(self) -> int:
        """Register one revision more; return its number."""
        number = 1 + len({revision for revision, _ in self.expected})
        bias = 3 * np.eye(7, dtype=np.float32)[number]
        store = TaskStore(self.folder / "tasks")
        reference = add_task(store, self.engine, TASK, head_bias=bias)
        # What it must answer is known before anybody can hear of it.
        self._expect(store.open(reference))
        added = self.registry.add(self.folder / TASK)
        assert added.artifact.description.revision == number
        return number

    def let_stable_mean(self, revision: int) -> None:
        """Move the alias."""
        self.was_stable.add(revision)
        self.registry.alias(TASK, "stable", revision)

    def _expect(self, artifact: Artifact) -> None:
        number = artifact.description.revision
        weights = artifact.load_level(0, self.engine.backbone.shape)
        task = self.engine.load_task(artifact.description, 0, weights)
        folder = BackboneStore(load_settings().models_dir).fetch("minilm-l3")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        for text in TEXTS:
            ids = np.array(tokenizer.encode(text).ids, np.int64)
            (logits,) = self.engine.run([EngineRow(task, ids[ids != 0])])
            scores = judge(artifact.description, 0, logits, None).scores
            labels = artifact.description.labels
            self.expected[number, text] = dict(zip(labels, scores.tolist(), strict=True))


@dataclass(slots=True)
class Asker:
    """Asks one way to name the task, one query after the other, until it is told to stop."""

    client: Client
    selector: Callable[[], str]
    stop: threading.Event
    answers: list[tuple[str, str, Result]] = field(default_factory=list)
    """(what was asked for, the text, the answer)."""
    error: BaseException | None = None

    def run(self) -> None:
        """Ask; an error ends it and is kept."""
        try:
            while not self.stop.is_set():
                selector = self.selector()
                text = TEXTS[len(self.answers) % len(TEXTS)]
                query = new_query(selector, text, parameters=ALL_LABELS)
                answer = self.client.ask(query, timeout_s=ANSWER_LIMIT_S)
                self.answers.append((selector, text, answer))
        except BaseException as error:  # noqa: BLE001 - raised again by the test
            self.error = error

    def revisions(self) -> list[int]:
        """Return the revision of each answer, in the order of asking."""
        return [answer.task_revision for _, _, answer in self.answers]


def test_every_answer_is_of_one_registered_revision(updates: Updates, settings: Settings) -> None:
    """By name, by number and by alias: the revision that it names gave its scores, all of them."""
    numbers = [1]
    stop = threading.Event()
    connection = Connection(kafka_settings(settings), settings.namespace)
    with Client(connection) as client:
        turn = iter(range(1 << 30))
        by_name = Asker(client, lambda: TASK, stop)
        by_number = Asker(client, lambda: f"{TASK}@{numbers[next(turn) % len(numbers)]}", stop)
        by_alias = Asker(client, lambda: f"{TASK}:stable", stop)
        askers = (by_name, by_number, by_alias)
        threads = [threading.Thread(target=asker.run) for asker in askers]
        for thread in threads:
            thread.start()

        def answered(asker: Asker, revision: int) -> None:
            until(lambda: asker.error is not None or revision in asker.revisions())

        try:
            for _ in range(NUM_REVISIONS - 1):
                number = updates.register_next()
                answered(by_name, number)
                numbers.append(number)
                updates.let_stable_mean(number)
                answered(by_alias, number)
                answered(by_number, number)
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    assert [asker.error for asker in askers] == [None] * 3
    assert sorted(set(by_name.revisions())) == list(range(1, NUM_REVISIONS + 1))
    assert by_name.revisions() == sorted(by_name.revisions())
    assert by_alias.revisions() == sorted(by_alias.revisions())
    assert set(by_alias.revisions()) <= updates.was_stable
    for selector, text, answer in by_number.answers:
        assert selector == f"{TASK}@{answer.task_revision}", text
    for text in TEXTS:
        for one, other in combinations((updates.expected[n, text] for n in numbers), 2):
            assert max(abs(one[label] - other[label]) for label in one) > 100 * TOLERANCE
    for asker in askers:
        for _, text, answer in asker.answers:
            wanted = updates.expected[answer.task_revision, text]
            given = dict(zip(answer.labels, answer.scores, strict=True))
            assert given.keys() == wanted.keys()
            assert max(abs(given[label] - wanted[label]) for label in wanted) < TOLERANCE

    updates.stop_services()
    recent = RecentTasks(recent_tasks_file(settings, 0, f"{gethostname()}-worker-0-0")).read()
    assert {task.revision for task in recent} >= {numbers[-1]}, "the next start knows what was used"
