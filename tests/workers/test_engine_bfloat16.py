"""The engine in bfloat16: the same answers as in float32 but for what rounding costs."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kept_figures import kept_figures
from tests.workers.pets import PETS, random_embedding, random_task
from workers.engine import Engine, EngineRow
from workers.loaded_task import LoadedTask
from workers.precision import Precision

MAX_DIFFERENCE = 0.05
"""Of the standard deviation of the float32 logits."""
LENGTHS = (3, 17, 40)


@pytest.fixture(scope="module")
def both(small_engine: Engine) -> Iterator[Engine]:
    """An engine that runs both types."""
    engine = Engine(
        small_engine.backbone,
        threads=2,
        precisions=("float32", "bfloat16"),
        figures_file=kept_figures(),
    )
    yield engine
    engine.close()


def token_ids(seed: int, num_tokens: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(1000, 30000, num_tokens)


def logits_of(engine: Engine, *tasks: LoadedTask) -> list[NDArray[np.float32]]:
    """Return each task's logits of rows of all lengths, run in one batch, end to end."""
    rows = [EngineRow(task, token_ids(n, n)) for task in tasks for n in LENGTHS]
    logits = [of_row.reshape(-1) for of_row in engine.run(rows)]
    count = len(LENGTHS)
    return [np.concatenate(logits[i : i + count]) for i in range(0, len(logits), count)]


def difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest difference over the expected values' standard deviation."""
    return float(np.abs(found - expected).max() / expected.std())


@pytest.mark.parametrize("variant", PETS)
def test_every_kind_answers_as_in_float32(both: Engine, variant: str) -> None:
    """Rows of both types run in one batch; those in bfloat16 are rounded, and only that."""
    task = random_task(variant, both.backbone.shape, num_labels=9)

    full, rounded = logits_of(both, task.load(both, "float32"), task.load(both, "bfloat16"))

    assert 0 < difference(rounded, full) < MAX_DIFFERENCE


@pytest.mark.parametrize("head", ["identity", "projection", "activation", "two-layers"])
def test_embeddings_and_tags_do_too(both: Engine, head: str) -> None:
    shape = both.backbone.shape
    embedding = random_embedding(head, shape, variant="lora", pooling="mean")
    tagging = random_task("diff", shape, kind="tagging", pooling="none", num_labels=9)
    for task in (embedding, tagging):
        full, rounded = logits_of(both, task.load(both, "float32"), task.load(both, "bfloat16"))

        assert 0 < difference(rounded, full) < MAX_DIFFERENCE


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rows_of_the_other_type_change_nothing(both: Engine, precision: Precision) -> None:
    task = random_task("lora", both.backbone.shape).load(both, precision)
    others = [
        random_task(variant, both.backbone.shape).load(both, other)
        for variant in ("mask", "houlsby")
        for other in ("float32", "bfloat16")
    ]
    (alone,) = logits_of(both, task)

    beside = logits_of(both, *others[:2], task, *others[2:])[2]

    assert difference(beside, alone) < (1e-5 if precision == "float32" else MAX_DIFFERENCE)


@pytest.mark.parametrize("variant", ["mask", "diff"])
def test_sparse_changes_agree_on_both_sides_of_the_break_even(both: Engine, variant: str) -> None:
    """Written into a float32 copy that is rounded then, or added beside the product."""
    found = []
    for rows in (0, 1 << 30):
        loaded = random_task(variant, both.backbone.shape).load(both, "bfloat16")
        for ops in loaded.ops.products.values():
            if ops.sparse is not None:
                object.__setattr__(ops.sparse, "patch_from_rows", rows)
        found += logits_of(both, loaded)

    assert difference(*found) < MAX_DIFFERENCE


def test_a_task_is_not_run_by_an_engine_without_its_type(
    both: Engine, small_engine: Engine
) -> None:
    task = random_task("bitfit", both.backbone.shape).load(both, "bfloat16")

    with pytest.raises(ValueError, match="this engine computes in float32"):
        small_engine.run([EngineRow(task, token_ids(0, 5))])


@pytest.mark.parametrize(
    ("precisions", "passes", "faster", "expected"),
    [
        (("float32",), True, True, "float32"),
        (("bfloat16",), False, False, "bfloat16"),
        (("float32", "bfloat16"), True, True, "bfloat16"),
        (("float32", "bfloat16"), True, False, "float32"),
        (("float32", "bfloat16"), False, True, "float32"),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster_and_the_task_passed(
    both: Engine,
    monkeypatch: pytest.MonkeyPatch,
    precisions: tuple[Precision, ...],
    passes: bool,
    faster: bool,
    expected: Precision,
) -> None:
    us_per_row = {"float32": 2.0, "bfloat16": 1.0 if faster else 3.0}
    monkeypatch.setattr(both, "encoders", {p: _Costing(us_per_row[p]) for p in precisions})

    assert both.precision_of(passes_bfloat16=passes) == expected


class _Costing:
    """Stands for an encoder, and for its products."""

    def __init__(self, us_per_row: float) -> None:
        self.us_per_row = us_per_row
        self.products = self
