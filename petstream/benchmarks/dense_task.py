"""A task in the form that training gives it, loaded without a file: for benchmarks and tests."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from messages.task_event import TaskKind
from tasks.backbone_shape import BackboneShape
from tasks.description import (
    BackboneReference,
    EmbeddingLayout,
    HeadLayout,
    LevelDescription,
    Pooling,
    TaskDescription,
)
from tasks.pets.kinds import AnyPet
from tasks.site_ops import HiddenLayer, PetWeights
from workers.engine import Engine
from workers.loaded_task import LoadedTask
from workers.precision import Precision


@dataclass(frozen=True, slots=True, eq=False)
class DenseTask:
    """A task in the form that training gives it, and its head."""

    name: str
    kind: TaskKind
    pet: AnyPet
    dense: dict[str, NDArray[Any]]
    """Tensors in the dense form of `tasks.pets`."""
    head_weight: NDArray[np.float32]
    head_bias: NDArray[np.float32]
    pooling: Pooling
    takes_pair: bool = False
    layout: HeadLayout | None = None
    """With the layer `hidden`, or without the last layer, whose weights then count for nothing."""
    hidden: HiddenLayer | None = None

    @property
    def has_output(self) -> bool:
        """Whether its head has the last layer."""
        return self.layout is None or self.layout.output is None

    def weights(self, shape: BackboneShape) -> PetWeights:
        """Take it through its stored form."""
        stored = self.pet.encode(shape, self.dense, "float32")
        return PetWeights(
            kind=self.pet.kind,
            sites=self.pet.decode(shape, stored),
            head_weight=self.head_weight if self.has_output else None,
            head_bias=self.head_bias if self.has_output else None,
            num_bytes=sum(tensor.nbytes for tensor in stored.values()),
            head_hidden=self.hidden,
        )

    def load(self, engine: Engine, precision: Precision | None = None) -> LoadedTask:
        """Take it through its stored form into the engine.

        Args:
            engine: What will run it.
            precision: What its rows are computed in. None: the engine's first.
        """
        backbone = engine.backbone
        level = LevelDescription(
            level=0,
            backbone=BackboneReference(name="any", digest=backbone.digest),
            pet=self.pet,
            pooling=self.pooling,
            max_tokens=backbone.shape.max_positions - self.pet.reserved_positions(),
            head=self.layout,
            file="level-0.safetensors",
            sha256="0" * 64,
        )
        is_embedding = self.kind == "embedding"
        num_outputs = len(self.head_bias)
        description = TaskDescription(
            format=1,
            name=self.name,
            revision=1,
            kind=self.kind,
            labels=() if is_embedding else tuple(f"label-{i}" for i in range(num_outputs)),
            embedding=EmbeddingLayout(dimensions=num_outputs, normalise=True)
            if is_embedding
            else None,
            takes_pair=self.takes_pair,
            source="none",
            licence="none",
            levels=(level,),
        )
        return engine.load_task(description, 0, self.weights(backbone.shape), precision)


def without_pet(task: LoadedTask) -> LoadedTask:
    """Return the task with its head alone: the plain backbone."""
    return replace(task, ops=replace(task.ops, products={}, norms={}, prefixes={}, embeddings=None))
