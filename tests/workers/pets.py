"""Tasks with random PETs whose every tensor moves the logits, on a real backbone's shape.

`benchmarks/` uses them too: an op's time does not depend on its values.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from messages.task_event import TaskKind
from tasks.backbone_shape import BackboneShape
from tasks.description import BackboneReference, LevelDescription, Pooling, TaskDescription
from tasks.pets.adapter import Adapter
from tasks.pets.bitfit import BitFit
from tasks.pets.diff import Diff
from tasks.pets.ia3 import Ia3
from tasks.pets.kinds import AnyPet
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask
from tasks.pets.random_weights import random_floats, random_weights
from tasks.site_ops import PetWeights
from workers.engine import Engine
from workers.loaded_task import LoadedTask

PETS: dict[str, AnyPet] = {
    "lora": Lora(rank=8, alpha=16.0),
    "lora-query-value": Lora(rank=4, alpha=8.0, sites=("query", "value")),
    "ia3": Ia3(),
    "bitfit": BitFit(),
    "houlsby": Adapter(placement="houlsby", bottleneck=64, activation="gelu"),
    "pfeiffer": Adapter(placement="pfeiffer", bottleneck=32, activation="relu"),
    "mask": Mask(),
    "diff": Diff(),
}
"""One value of each kind and variant, with sizes as in the papers."""


@dataclass(frozen=True, slots=True, eq=False)
class RandomTask:
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

    def load(self, engine: Engine) -> LoadedTask:
        """Take it through its stored form into the engine."""
        backbone = engine.backbone
        stored = self.pet.encode(backbone.shape, self.dense, "float32")
        weights = PetWeights(
            kind=self.pet.kind,
            sites=self.pet.decode(backbone.shape, stored),
            head_weight=self.head_weight,
            head_bias=self.head_bias,
            num_bytes=sum(tensor.nbytes for tensor in stored.values()),
        )
        level = LevelDescription(
            level=0,
            backbone=BackboneReference(name="any", digest=backbone.digest),
            pet=self.pet,
            pooling=self.pooling,
            max_tokens=backbone.shape.max_positions,
            file="level-0.safetensors",
            sha256="0" * 64,
        )
        description = TaskDescription(
            format=1,
            name=self.name,
            revision=1,
            kind=self.kind,
            labels=tuple(f"label-{i}" for i in range(len(self.head_bias))),
            takes_pair=self.takes_pair,
            source="random",
            licence="none",
            levels=(level,),
        )
        return engine.load_task(description, 0, weights)


def random_task(
    variant: str,
    shape: BackboneShape,
    *,
    seed: int = 0,
    kind: TaskKind = "single_label",
    num_labels: int = 7,
    pooling: Pooling = "mean",
    takes_pair: bool = False,
) -> RandomTask:
    """Make a task of a variant of `PETS`."""
    rng = np.random.default_rng(seed)
    pet = PETS[variant]
    return RandomTask(
        name=f"{variant}-{kind}-{seed}".replace("_", "-"),
        kind=kind,
        pet=pet,
        dense=random_weights(pet, shape, rng),
        head_weight=random_floats(rng, 0.3, num_labels, shape.hidden_size),
        head_bias=random_floats(rng, 0.3, num_labels),
        pooling=pooling,
        takes_pair=takes_pair,
    )


def without_pet(task: LoadedTask) -> LoadedTask:
    """Return the task with its head alone: the plain backbone."""
    return replace(task, ops=replace(task.ops, products={}, norms={}))
