"""Imported checkpoints in the packed engine."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.description import BackboneReference, LevelDescription, TaskDescription
from tasks.importers.imported import ImportedHead, ImportedPet
from tasks.site_ops import HiddenLayer, PetWeights
from workers.backbone import Backbone
from workers.engine import Engine, EngineRow
from workers.loaded_task import LoadedTask


@cache
def tiny_engine(folder: Path) -> Engine:
    """Return an engine on a tiny backbone."""
    return Engine(Backbone.load(folder), threads=1)


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
    assert head.bias is not None
    backbone = engine.backbone
    stored = imported.pet.encode(backbone.shape, imported.tensors, "float32")
    weights = PetWeights(
        kind=imported.pet.kind,
        sites=imported.pet.decode(backbone.shape, stored),
        head_weight=head.weight,
        head_bias=head.bias,
        num_bytes=sum(tensor.nbytes for tensor in stored.values()),
        head_hidden=_hidden(head),
    )
    level = LevelDescription(
        level=0,
        backbone=BackboneReference(name="tiny", digest=backbone.digest),
        pet=imported.pet,
        pooling=head.pooling,
        max_tokens=backbone.shape.max_positions - imported.pet.reserved_positions(),
        head=head.layout,
        file="level-0.safetensors",
        sha256="0" * 64,
    )
    description = TaskDescription(
        format=1,
        name="imported",
        revision=1,
        kind=head.kind,
        labels=head.labels or tuple(f"label-{i}" for i in range(len(head.bias))),
        takes_pair=has_pairs,
        source="random",
        licence="none",
        levels=(level,),
    )
    return engine.load_task(description, 0, weights)


def _hidden(head: ImportedHead) -> HiddenLayer | None:
    if head.layout is None or head.layout.activation is None:
        return None
    return HiddenLayer(head.hidden_weight, head.hidden_bias, head.layout.activation)
