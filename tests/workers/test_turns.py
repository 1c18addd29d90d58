"""Several units at one engine: whose slices come next, and that threads share what they may."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from typing import TypeVar

import numpy as np
import pytest

from tests.kept_figures import kept_figures
from tests.workers.pets import identity_task
from workers.backbone import Backbone
from workers.backbone_store import BackboneStore
from workers.encoder import Encoder
from workers.engine import Engine, EngineRow
from workers.packed_batch import PackedBatch
from workers.read_tokens import Encoded
from workers.row_tokenizer import RowTokenizer
from workers.tagging import WordFinder

T = TypeVar("T")
LIMIT_S = 20.0
LONG = np.full(500, 2000, np.int64)
"""Tokens of a row; three of them are two slices."""


class Gate:
    """Stands before an encoder: passes wait until it opens, but for one that is to fail."""

    def __init__(self, encoder: Encoder) -> None:
        self._encode = encoder.encode
        self.entered = threading.Semaphore(0)
        self.may_pass = threading.Event()
        self.error: Exception | None = None

    def encode(self, batch: PackedBatch) -> Encoded:
        """Encode when the gate opens."""
        self.entered.release()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        assert self.may_pass.wait(LIMIT_S)
        return self._encode(batch)


@pytest.fixture
def engine(backbones: BackboneStore) -> Iterator[Engine]:
    engine = Engine(
        Backbone.load(backbones.fetch("minilm-l3")), threads=1, figures_file=kept_figures()
    )
    yield engine
    engine.close()


@pytest.fixture
def gate(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    encoder = engine.encoders["float32"]
    assert isinstance(encoder, Encoder)
    gate = Gate(encoder)
    monkeypatch.setattr(encoder, "encode", gate.encode)
    yield gate
    gate.may_pass.set()


def _begin(function: Callable[[], T]) -> "Future[T]":
    """Call a function on a thread that no failing test waits for."""
    result: Future[T] = Future()
    threading.Thread(target=lambda: result.set_result(function()), daemon=True).start()
    return result


def _rows(engine: Engine, num_rows: int) -> list[EngineRow]:
    return [EngineRow(identity_task(engine), LONG) for _ in range(num_rows)]


def test_a_turn_comes_when_everything_before_has_begun(engine: Engine, gate: Gate) -> None:
    """Not when it is done: what comes next is at hand when a thread becomes free."""
    running = _begin(lambda: engine.run(_rows(engine, 3)))
    assert gate.entered.acquire(timeout=LIMIT_S)
    turn = _begin(engine.wait_for_turn)
    with pytest.raises(TimeoutError):
        turn.result(0.2)  # its second slice waits for the only thread

    gate.may_pass.set()
    turn.result(LIMIT_S)
    assert len(running.result(LIMIT_S)) == 3


def test_the_last_slice_needs_not_end_before_the_next_turn(engine: Engine, gate: Gate) -> None:
    """It has its thread; whoever comes next waits for that in the pool's queue."""
    running = _begin(lambda: engine.run(_rows(engine, 1)))
    assert gate.entered.acquire(timeout=LIMIT_S)

    _begin(engine.wait_for_turn).result(LIMIT_S)

    assert not running.done()
    gate.may_pass.set()
    running.result(LIMIT_S)


def test_slices_behind_one_that_failed_hold_nobody_up(engine: Engine, gate: Gate) -> None:
    """They are never begun, and nobody waits for them."""
    gate.error = ZeroDivisionError("bad row")
    with pytest.raises(ZeroDivisionError, match="bad row"):
        engine.run(_rows(engine, 9))  # five slices: the second has begun, or is not begun either
    gate.may_pass.set()

    _begin(engine.wait_for_turn).result(LIMIT_S)


def test_runs_at_once_share_the_threads(
    backbones: BackboneStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by itself is cut into a slice for each; one beside another into its share of them."""
    engine = Engine(
        Backbone.load(backbones.fetch("minilm-l3")), threads=2, figures_file=kept_figures()
    )
    encoder = engine.encoders["float32"]
    assert isinstance(encoder, Encoder)
    gate = Gate(encoder)
    monkeypatch.setattr(encoder, "encode", gate.encode)
    alone = _begin(lambda: engine.run(_rows(engine, 2)))
    assert gate.entered.acquire(timeout=LIMIT_S)
    assert gate.entered.acquire(timeout=LIMIT_S)

    beside = _begin(lambda: engine.run(_rows(engine, 2)))
    deadline_s = monotonic() + LIMIT_S
    while engine._num_waiting < 1:
        assert monotonic() < deadline_s
        sleep(0.002)
    gate.may_pass.set()
    for run in (alone, beside):
        assert len(run.result(LIMIT_S)) == 2
    assert gate.entered.acquire(blocking=False)
    assert not gate.entered.acquire(blocking=False)  # three passes in all
    engine.close()


def test_two_threads_find_words_at_once(backbones: BackboneStore) -> None:
    """A tokenizer cuts at the length of the row that was asked for last: one at a time has it."""
    folder: Path = backbones.fetch("minilm-l3")
    finder = WordFinder(folder)
    tokenizer = RowTokenizer(folder)
    text = "Ada Lovelace did not go to Wroxeter today"
    rows = [tokenizer.encode(text, None, max_tokens) for max_tokens in (5, 64)]

    def found(number: int) -> Sequence[bool]:
        row = rows[number]
        return [finder.words(text, None, row.token_ids) == row.words for _ in range(500)]

    with ThreadPoolExecutor(2) as callers:
        for all_right in callers.map(found, (0, 1)):
            assert all(all_right)
