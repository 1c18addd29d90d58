"""Artifacts for tests: a tiny backbone, trained-looking tensors of every PET kind, folders."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from messages.task_event import TaskKind
from tasks.artifact import Artifact
from tasks.artifact_writer import TrainedLevel, write_artifact
from tasks.backbone_shape import BackboneShape
from tasks.description import BackboneReference, Cascade
from tasks.pets.adalora import AdaLora
from tasks.pets.adapter import Adapter
from tasks.pets.bitfit import BitFit
from tasks.pets.combined import Combined
from tasks.pets.compacter import Compacter
from tasks.pets.dense_delta import DenseDelta
from tasks.pets.diff import Diff
from tasks.pets.dora import Dora
from tasks.pets.embedding_delta import EmbeddingDelta
from tasks.pets.ia3 import Ia3
from tasks.pets.kinds import AnyPet
from tasks.pets.layer_norm import LayerNormTuning
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask
from tasks.pets.prefix import Prefix
from tasks.pets.prompt import Prompt
from tasks.pets.random_weights import random_weights

SHAPE = BackboneShape(
    num_layers=2,
    hidden_size=8,
    num_heads=2,
    intermediate_size=20,
    vocab_size=50,
    max_positions=32,
)
BACKBONE = BackboneReference(name="tiny", digest="sha256:" + "ab" * 32)
SHAPES = {"tiny": SHAPE}
LABELS = ("no", "perhaps", "yes")

PETS: dict[str, AnyPet] = {
    "lora": Lora(rank=2, alpha=6.0),
    "lora-query-value": Lora(rank=3, alpha=3.0, sites=("query", "value")),
    "ia3": Ia3(),
    "bitfit": BitFit(),
    "houlsby": Adapter(placement="houlsby", bottleneck=3, activation="gelu"),
    "pfeiffer": Adapter(placement="pfeiffer", bottleneck=2, activation="relu"),
    "mask": Mask(),
    "diff": Diff(),
    "lora-patterns": Lora(
        rank=2,
        alpha=6.0,
        sites=("query", "1.ffn_input"),
        rank_pattern={"0.query": 3},
        has_bias=True,
        gated=True,
    ),
    "dora": Dora(rank=2, alpha=6.0, sites=("query", "ffn_output")),
    "adalora": AdaLora(rank=3, alpha=6.0, sites=("key",), rank_pattern={"1.key": 1}),
    "ia3-elsewhere": Ia3(output_sites=("ffn_input",), input_sites=("0.attention_output",)),
    "bitfit-some": BitFit(sites=("1.query", "embeddings", "ffn_norm")),
    "layer-norm": LayerNormTuning(sites=("attention_norm", "embeddings")),
    "adapter-options": Adapter(
        placement="attention",
        bottleneck=3,
        activation="silu",
        bottlenecks={"1.attention_output": 2},
        own_norms=False,
        reads="input",
        norm_before=True,
        norm_after="sum",
        gated=True,
    ),
    "compacter": Compacter(
        placement="houlsby", bottleneck=4, activation="relu", phm_dim=2, phm_rank=1
    ),
    "compacter-whole": Compacter(
        placement="pfeiffer", bottleneck=4, activation="relu", phm_dim=2, shared_rule=False
    ),
    "prefix": Prefix(num_tokens=3, leave_out=(0,), gated=True),
    "prompt": Prompt(num_tokens=3),
    "dense-delta": DenseDelta(),
    "embedding-delta": EmbeddingDelta(num_positions=32, num_types=2),
    "combined": Combined(parts=(Lora(rank=2, alpha=2.0), BitFit(), Prefix(num_tokens=2))),
}
"""One value of each kind and variant."""


def dense_tensors(
    pet: AnyPet,
    shape: BackboneShape = SHAPE,
    *,
    seed: int = 0,
    density: float = 0.05,
) -> dict[str, NDArray[Any]]:
    """Return tensors in the dense form, as a training recipe would; floats are exact in float16."""
    return random_weights(pet, shape, np.random.default_rng(seed), density)


def floats(rng: np.random.Generator, *size: int) -> NDArray[np.float32]:
    """Return small values that float16 holds exactly."""
    return rng.standard_normal(size).astype(np.float16).astype(np.float32)


def trained_level(
    pet: AnyPet = PETS["lora"],
    *,
    level: int = 0,
    seed: int = 0,
    num_labels: int = len(LABELS),
    density: float = 0.05,
) -> TrainedLevel:
    """Return a level of the tiny backbone."""
    rng = np.random.default_rng(seed + 1)
    return TrainedLevel(
        level=level,
        backbone=BACKBONE,
        shape=SHAPE,
        pet=pet,
        pooling="mean",
        max_tokens=32 - pet.reserved_positions(),
        head_weight=floats(rng, num_labels, SHAPE.hidden_size),
        head_bias=floats(rng, num_labels),
        tensors=dense_tensors(pet, seed=seed, density=density),
    )


def write(
    folder: Path,
    *levels: TrainedLevel,
    name: str = "weather",
    kind: TaskKind = "single_label",
    cascade: Cascade | None = None,
    overwrite: bool = False,
) -> Artifact:
    """Write an artifact with these levels; without any, one LoRA level."""
    return write_artifact(
        folder,
        name=name,
        kind=kind,
        labels=LABELS,
        takes_pair=False,
        source="made up",
        licence="CC0",
        levels=levels or (trained_level(),),
        cascade=cascade,
        overwrite=overwrite,
    )
