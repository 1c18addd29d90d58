"""Tasks in bfloat16 beside float32: what is measured, kind by kind, and that it tells."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from messages.task_event import TaskReference
from petstream.demo_samples import EXAMPLES_DIR
from tasks.artifact import Artifact, open_artifact
from tasks.bfloat16_record import LevelComparison, write_record
from tests.kept_figures import kept_figures
from tests.workers.sentences import SENTENCES
from tests.workers.stored_tasks import PLENTY, WatchedStore, add_task
from workers import bfloat16_comparison
from workers.answers import Answer
from workers.backbone_store import BackboneStore
from workers.bfloat16_comparison import compare
from workers.engine import Engine
from workers.local_level import LocalAnswer, LocalLevel
from workers.precision import Precision, precisions_of
from workers.processor import Processor
from workers.shared_products import SharedProducts
from workers.task_manager import LoadedTask, TaskManager

TASKS = ("banking77", "nlupp", "snips_slots")
"""One label, several labels, tags."""


@pytest.fixture(scope="module")
def local(backbones: BackboneStore) -> Iterator[LocalLevel]:
    """The small backbone in both types."""
    local = LocalLevel(
        backbones.fetch("minilm-l3"),
        threads=1,
        precisions=("float32", "bfloat16"),
        figures_file=kept_figures(),
    )
    yield local
    local.close()


def example(name: str) -> Artifact:
    return open_artifact(EXAMPLES_DIR / "tasks" / name)


@pytest.mark.parametrize("name", TASKS)
def test_a_real_task_answers_the_same_and_its_logits_move_a_little(
    local: LocalLevel, name: str
) -> None:
    artifact = example(name)

    found = compare(local, artifact, 0, SENTENCES, "sentences")

    assert (found.num_rows, found.rows_from) == (len(SENTENCES), "sentences")
    assert found.sha256 == artifact.description.level(0).sha256
    assert 0 < found.largest_difference < 0.1 * found.deviation
    assert 0 < found.largest_confidence_difference < 0.05
    assert found.same_answers >= 0.9


@pytest.mark.parametrize("name", TASKS)
def test_an_answer_that_changes_is_counted(
    local: LocalLevel, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Were bfloat16 to give the answer of another row, most would be others."""
    run = LocalLevel.run

    def shifted(self: LocalLevel, rows: list[tuple[LoadedTask, str]]) -> list[LocalAnswer]:
        is_rounded = rows[0][0].precision == "bfloat16"
        answers = run(self, rows)
        if not is_rounded:
            return answers
        # The logits stay those of the row: only answers are compared here.
        moved = [*answers[1:], answers[0]]
        return [replace(b, logits=a.logits) for a, b in zip(answers, moved, strict=True)]

    monkeypatch.setattr(LocalLevel, "run", shifted)

    assert compare(local, example(name), 0, SENTENCES, "sentences").same_answers < 0.5


@pytest.mark.parametrize("passes", [True, False, None])
def test_a_worker_goes_by_the_record_of_the_stored_task(
    small_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: bool | None
) -> None:
    """None: a task that was never compared."""
    both = Engine(
        small_engine.backbone,
        threads=1,
        precisions=("float32", "bfloat16"),
        figures_file=kept_figures(),
    )
    monkeypatch.setattr(SharedProducts, "us_per_row", property(_cost))
    store = WatchedStore(tmp_path / "tasks")
    reference = add_task(store, both, "weather")
    if passes is not None:
        stored = store.open(reference)
        level = stored.description.level(0)
        found = LevelComparison(
            level=0,
            sha256=level.sha256,
            backbone=level.backbone.digest,
            num_rows=10,
            rows_from="built-in",
            same_answers=1.0 if passes else 0.5,
            largest_difference=0.0,
            deviation=1.0,
            largest_confidence_difference=0.0,
        )
        write_record(stored.folder, [found])

    assert _precision(both, store, reference) == ("bfloat16" if passes else "float32")
    both.close()


def _cost(products: object) -> float:
    """As on a processor that has bfloat16."""
    return {"torch.float32": 2.0, "torch.bfloat16": 1.0}[str(getattr(products, "_dtype", None))]


def _precision(engine: Engine, store: WatchedStore, reference: TaskReference) -> Precision:
    manager = TaskManager(store, engine, level=0, memory_limit_bytes=PLENTY)
    try:
        with manager.acquire_all([reference]) as (task,):
            assert isinstance(task, LoadedTask)
            return task.precision
    finally:
        manager.close()


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_auto_is_bfloat16_too_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool
) -> None:
    processor = Processor(name="any", vendor="AMD", has_bfloat16=has_bfloat16)
    monkeypatch.setattr("workers.precision.this_processor", lambda: processor)

    expected = ("float32", "bfloat16") if has_bfloat16 else ("float32",)
    assert precisions_of("auto") == expected
    assert precisions_of("float32") == ("float32",)
    assert precisions_of("bfloat16") == ("bfloat16",)


def test_embeddings_are_the_same_while_they_point_the_same_way() -> None:
    """By their cosine, whatever their length."""
    artifact = example("banking77").description.model_copy(update={"kind": "embedding"})
    vector = np.array([3.0, 4.0, 0.0], np.float32)

    def answer(logits: NDArray[np.float32]) -> LocalAnswer:
        return LocalAnswer(logits, logits, 1.0, Answer(), (), 1)

    is_same = bfloat16_comparison._is_same
    assert is_same(artifact, answer(vector), answer(1.1 * vector))
    assert not is_same(artifact, answer(vector), answer(vector + np.array([0, 0, 0.5], np.float32)))
