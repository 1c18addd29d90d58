"""The benchmark of the engine on a device, with the CPU in its place."""

import pytest
import torch

from benchmarks import gpu_engine
from benchmarks.gpu_engine import MIXES, engine_rows
from tasks.backbone_shape import BackboneShape
from workers.grouped.on_device import OnDevice

SHAPE = BackboneShape(2, 64, 2, 128, 100, 32)
CPU = OnDevice(torch.device("cpu"))


def test_every_mix_is_checked_and_timed() -> None:
    """A row for each mix and number of queries, with answers like those of the cores."""
    rows = list(engine_rows(CPU, 1, shape=SHAPE, num_tasks=6, rows_per_task=(1, 2), row_len=5))

    assert [(row["name"], row["rows_per_task"]) for row in rows] == [
        (mix, number) for mix in MIXES for number in (1, 2)
    ]
    assert all(0 <= row["error"] < gpu_engine.MAX_ERROR for row in rows)
    assert all(row["ours_ms"] > 0 and row["share_of_bare"] > 0 for row in rows)


def test_other_answers_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed then."""
    monkeypatch.setattr(gpu_engine, "MAX_ERROR", -1.0)

    with pytest.raises(AssertionError, match="differ by"):
        next(engine_rows(CPU, 1, shape=SHAPE, num_tasks=6, rows_per_task=(1,), row_len=5))
