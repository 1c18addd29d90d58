"""From how many rows on a sparse change is patched in: measured at the start, for every density."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from gpu_ops.sparse_delta import SparseWeights, sparse_weights
from tests.workers.pets import random_task
from workers import sparse_policy
from workers.backbone import PRODUCTS, LinearWeights
from workers.break_even import FEW_ROWS, MANY_ROWS, NEVER
from workers.encoder import Encoder
from workers.engine import Engine
from workers.linear_backends import UnpackedLinear
from workers.machine_figures import MachineFigures
from workers.sparse_policy import SharedProduct, SparsePolicy

NUM_OUT, NUM_IN = 40, 50
ROWS = {"few": FEW_ROWS, "many": MANY_ROWS}


def change(num_changed: int, *, is_dropped: bool = False) -> SparseWeights:
    values = None if is_dropped else torch.ones(num_changed)
    return sparse_weights(torch.arange(num_changed, dtype=torch.int32), values, (NUM_OUT, NUM_IN))


@pytest.mark.parametrize("num_changed", [5, 10, 30, 100, 400, 1000])
def test_every_density_is_told_from_the_two_that_were_measured(
    small_engine: Engine, monkeypatch: pytest.MonkeyPatch, num_changed: int
) -> None:
    """A change costs 2 us a row for each 10 weights beside the product, 3 us and 40 us patched.

    A copy that is kept costs 40 us. A row of either costs 5 us, as among others in the shared
    product, where it costs half of what it costs there alone.
    """
    measured = iter((10, 10, 100, 100) * 2)
    is_kept = cycle((False, True))

    def least_us(*_: object) -> dict[str, float]:
        size, patch_us = next(measured), 0.0
        if not next(is_kept):
            patch_us = 3 * size / 10
        return {
            **{f"beside {n}": 2 * size / 10 * rows for n, rows in ROWS.items()},
            **{f"apart {n}": 40 + patch_us + 5 * rows for n, rows in ROWS.items()},
            "shared": 10 * MANY_ROWS,
        }

    monkeypatch.setattr(sparse_policy, "least_us", least_us)
    unpacked = UnpackedLinear("torch", F.linear)
    weights = LinearWeights(torch.zeros(NUM_OUT, NUM_IN), torch.zeros(NUM_OUT))

    def linear(x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weights.weight, weights.bias)

    product = SharedProduct(
        weights.weight, weights.bias, linear, unpacked, "torch", share_among_many=0.5
    )
    encoder = small_engine.encoders["float32"]
    assert isinstance(encoder, Encoder)
    policy = SparsePolicy([product], encoder.operators, MachineFigures())

    rows, kept_rows = policy.break_evens(change(num_changed), weights.weight.shape)

    us_a_row = 2 * num_changed / 10
    patch_us = 40 + 3 * num_changed / 10
    assert rows == pytest.approx(max(FEW_ROWS, patch_us / us_a_row), abs=0.5)
    assert kept_rows == pytest.approx(max(FEW_ROWS, 40 / us_a_row), abs=0.5)


def test_a_kept_copy_is_used_where_it_is_faster_than_a_patched_one(
    small_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its own rows and is read from memory, patches have neither: it may cost more."""
    is_kept = cycle((False, True))

    def least_us(*_: object) -> dict[str, float]:
        us_of_pass = 100 if next(is_kept) else 50
        return {
            **{f"beside {name}": 10 * rows for name, rows in ROWS.items()},
            **{f"apart {name}": us_of_pass + rows for name, rows in ROWS.items()},
            "shared": MANY_ROWS,
        }

    monkeypatch.setattr(sparse_policy, "least_us", least_us)
    weight, bias = torch.zeros(NUM_OUT, NUM_IN), torch.zeros(NUM_OUT)
    product = SharedProduct(
        *(weight, bias, lambda x: F.linear(x, weight), UnpackedLinear("torch", F.linear), "torch"),
        share_among_many=1.0,
    )
    encoder = small_engine.encoders["float32"]
    assert isinstance(encoder, Encoder)
    policy = SparsePolicy([product], encoder.operators, MachineFigures())

    assert policy.break_evens(change(30), weight.shape) == (FEW_ROWS, NEVER)


def test_operators_of_another_library_are_measured_anew(
    small_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures of a library that was built since would choose by times that are no longer so."""
    num_measured = 0

    def least_us(ways: Mapping[str, object], _repeats: int) -> dict[str, float]:
        nonlocal num_measured
        num_measured += 1
        return dict.fromkeys(ways, 1.0)

    monkeypatch.setattr(sparse_policy, "least_us", least_us)
    weight, bias = torch.zeros(NUM_OUT, NUM_IN), torch.zeros(NUM_OUT)
    unpacked = UnpackedLinear("torch", F.linear)
    product = SharedProduct(
        weight, bias, lambda x: F.linear(x, weight), unpacked, "torch", share_among_many=1.0
    )
    encoder = small_engine.encoders["float32"]
    assert isinstance(encoder, Encoder)
    figures, counts = MachineFigures(), []
    for library in ("one", "one", "other"):
        compiled = replace(encoder.operators, compiled=frozenset({"patch"}), library=library)
        SparsePolicy([product], compiled, figures)
        counts.append(num_measured)

    assert counts == [8, 8, 16]


def test_what_a_row_costs_among_many_decides(
    small_engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Measured and kept: rows that cost nothing there are not worth a product of their own."""
    backbone, path = small_engine.backbone, tmp_path / "figures.json"
    Engine(backbone, threads=1, figures_file=path).close()
    kept = json.loads(path.read_text())
    among_many = [name for name in kept["figures"] if name.startswith("row among many")]
    assert len(among_many) == len(PRODUCTS)

    def least_us(*_: object) -> dict[str, float]:
        """Ways whose times do not depend on the machine; patching is never worth it by itself."""
        return {
            **{f"beside {name}": 1.0 * rows for name, rows in ROWS.items()},
            **{f"within {name}": 1e9 * rows for name, rows in ROWS.items()},
            **{f"apart {name}": 50 + 10.0 * rows for name, rows in ROWS.items()},
            "shared": 10.0 * MANY_ROWS,
        }

    monkeypatch.setattr(sparse_policy, "least_us", least_us)

    def keep_from_rows(share: float) -> set[int]:
        others = {n: f for n, f in kept["figures"].items() if not n.startswith(("drop", "change"))}
        figures = others | {name: {"slice": share, "task": 1.0} for name in among_many}
        path.write_text(json.dumps({**kept, "figures": figures}))
        engine = Engine(backbone, threads=1, figures_file=path)
        ops = random_task("mask", backbone.shape).load(engine).ops.products.values()
        engine.close()
        return {at.sparse.keep_from_rows for at in ops if at.sparse is not None}

    assert keep_from_rows(1e6) == {FEW_ROWS}
    assert keep_from_rows(0.0) == {NEVER}


@pytest.mark.parametrize("variant", ["mask", "diff"])
def test_nothing_is_measured_while_a_task_is_loaded(
    small_engine: Engine, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """It would take 100 ms of the cores that serve others; every change is told none the less."""

    def refuse(*_: object) -> Callable[[], None]:
        raise AssertionError("measured while serving")

    monkeypatch.setattr(sparse_policy, "least_us", refuse)

    task = random_task(variant, small_engine.backbone.shape, seed=3).load(small_engine)

    told = [ops.sparse.patch_from_rows for ops in task.ops.products.values() if ops.sparse]
    assert len(told) == 4 * small_engine.backbone.shape.num_layers
