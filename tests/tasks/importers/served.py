"""Imported checkpoints in the packed engine."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from petstream.benchmarks.dense_task import DenseTask
from tasks.importers.imported import ImportedHead, ImportedPet
from tasks.site_ops import HiddenLayer
from tests.kept_figures import kept_figures
from workers.backbone import Backbone
from workers.engine import Engine, EngineRow
from workers.loaded_task import LoadedTask


@cache
def tiny_engine(folder: Path) -> Engine:
    """Return an engine on a tiny backbone."""
    return Engine(Backbone.load(folder), threads=1, figures_file=kept_figures())


def engine_logits(
    imported: ImportedPet, folder: Path, rows: Sequence[NDArray[np.int64]], *, has_pairs: bool
) -> list[NDArray[np.float32]]:
    """Run all rows in one batch; the PET goes through its stored form in float32."""
    engine = tiny_engine(folder)
    task = _load(imported, engine, has_pairs)
    return engine.run([EngineRow(task, token_ids) for token_ids in rows])


def _load(imported: ImportedPet, engine: Engine, has_pairs: bool) -> LoadedTask:
    head = imported.head
    assert head is not None
    assert head.weight is not None
    assert head.bias is not None
    return DenseTask(
        name="imported",
        kind=head.kind,
        pet=imported.pet,
        dense=dict(imported.tensors),
        head_weight=head.weight,
        head_bias=head.bias,
        pooling=head.pooling,
        takes_pair=has_pairs,
        layout=head.layout,
        hidden=_hidden(head),
    ).load(engine)


def _hidden(head: ImportedHead) -> HiddenLayer | None:
    if head.layout is None or head.layout.activation is None:
        return None
    return HiddenLayer(head.hidden_weight, head.hidden_bias, head.layout.activation)
