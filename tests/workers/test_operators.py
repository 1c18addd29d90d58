"""The engine answers the same with compiled operators as with torch's, and runs without them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gpu_ops.compiled.library import Library
from tests.kept_figures import kept_figures
from tests.workers.pets import PETS, random_task
from workers import encoder as encoder_module
from workers import operator_choice
from workers.engine import Engine, EngineRow
from workers.machine_figures import MachineFigures
from workers.operator_choice import faster_ones
from workers.operators import OPERATOR_NAMES, Operators, available, operators
from workers.precision import Precision

TOLERANCES: dict[Precision, float] = {"float32": 1e-5, "bfloat16": 0.15}
"""Largest difference of logits, relative to the largest one where that is more than 1; bfloat16
rounds each state on the way to three digits."""

LENGTHS: dict[Precision, tuple[int, ...]] = {"float32": (1, 12, 61), "bfloat16": (1, 19)}
"""Tokens of the rows; few where most processors compute slowly."""


def token_ids(seed: int, num_tokens: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(1000, 30000, num_tokens)


@pytest.mark.parametrize("precision", TOLERANCES)
def test_rows_of_every_kind_have_one_answer(
    small_engine: Engine, library: Library, precision: Precision
) -> None:
    """All kinds and options in one batch, with all operators compiled and with none."""
    backbone = small_engine.backbone
    engine = Engine(backbone, threads=1, precisions=(precision,), figures_file=kept_figures())
    encoder = engine.encoders[precision]
    assert isinstance(encoder, encoder_module.Encoder)
    tasks = [
        random_task(variant, backbone.shape, seed=seed).load(engine)
        for seed, variant in enumerate(PETS)
    ]
    rows = [
        EngineRow(task, token_ids(length, length))
        for task in tasks
        for length in LENGTHS[precision]
    ]
    answers = []
    for compiled in ((), OPERATOR_NAMES):
        encoder.operators = operators(backbone, encoder._expanded.values, library, compiled)
        answers.append(engine.run(rows))
    engine.close()

    distances = [
        np.abs(one - other).max() / max(1.0, np.abs(one).max())
        for one, other in zip(*answers, strict=True)
    ]
    assert max(distances) < TOLERANCES[precision]


def test_no_library_is_no_error(small_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """All operators are torch's then, and the answers those of any engine."""
    monkeypatch.setattr(encoder_module, "load", lambda: None)
    engine = Engine(small_engine.backbone, threads=1, figures_file=kept_figures())
    task = random_task("mask", engine.backbone.shape, seed=1)
    ids = token_ids(1, 9)

    (found,) = engine.run([EngineRow(task.load(engine), ids)])
    engine.close()

    (expected,) = small_engine.run([EngineRow(task.load(small_engine), ids)])
    encoder = engine.encoders["float32"]
    assert isinstance(encoder, encoder_module.Encoder)
    assert encoder.operators.compiled == frozenset()
    assert np.abs(found - expected).max() < TOLERANCES["float32"]


@pytest.mark.parametrize("compiled_us", [1.0, 3.0])
def test_the_faster_one_of_each_is_taken(
    small_engine: Engine, library: Library, compiled_us: float
) -> None:
    """By this machine's figures, which are not measured again."""

    class Known(MachineFigures):
        def measured(self, name: str, measure: Callable[[], object]) -> dict[str, float]:
            assert library.name in name
            return {"torch": 2.0, "compiled": compiled_us}

    chosen = faster_ones(small_engine.backbone, torch.float32, library, Known())

    assert chosen == (frozenset(OPERATOR_NAMES) if compiled_us < 2 else frozenset())


def test_what_is_measured_is_the_time_of_both(small_engine: Engine, library: Library) -> None:
    """Of each operator that the library has for the backbone."""
    figures = MachineFigures()

    faster_ones(small_engine.backbone, torch.float32, library, figures)

    measured = [name for name in figures._figures if library.name in name]
    assert len(measured) == len(available(small_engine.backbone, library)) == len(OPERATOR_NAMES)
    for name in measured:
        assert figures._figures[name].keys() == {"torch", "compiled"}
        assert min(figures._figures[name].values()) > 0


def test_an_operator_that_computes_something_else_is_not_used(
    small_engine: Engine, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's compiler has compiled what was tested here."""

    class Wrong:
        def __init__(self, _: Library) -> None: ...

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x

    monkeypatch.setattr("workers.operators.CompiledGelu", Wrong)
    monkeypatch.setattr(operator_choice, "_us_by_way", _compiled_is_faster)

    chosen = faster_ones(small_engine.backbone, torch.float32, library, MachineFigures())

    assert chosen == frozenset(OPERATOR_NAMES) - {"activation"}


def _compiled_is_faster(_: object, ways: dict[str, Operators]) -> dict[str, float]:
    return {way: 1.0 if way == "compiled" else 2.0 for way in ways}
