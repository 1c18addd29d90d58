"""Kinds of PET in the sizes that PetS used, and the bytes that PetS holds of each.

PetS: adapters with a bottleneck of 64, masks that drop 5 % of the weights, diffs of 0.5 %. What it
holds is computed as its artifact holds it in GPU memory: fp32, masks and diffs as CSR with an int32
column and two int32 per row, biases and norms whole, no heads. For BERT-base these are the
published bytes. Kinds that PetS does not have are in the sizes of their papers.
"""

import math
from typing import Literal, get_args

from tasks.backbone_shape import LINEAR_SITES, BackboneShape
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
from tasks.pets.pet import Pet
from tasks.pets.prefix import Prefix
from tasks.pets.prompt import Prompt
from tasks.pets.random_weights import DENSITY

ShapeName = Literal["distilbert", "bert-base", "bert-large"]
SHAPE_NAMES: tuple[ShapeName, ...] = get_args(ShapeName)
SHAPES: dict[ShapeName, BackboneShape] = {
    "distilbert": BackboneShape(6, 768, 12, 3072, 30522, 512),
    "bert-base": BackboneShape(12, 768, 12, 3072, 30522, 512),
    "bert-large": BackboneShape(24, 1024, 16, 4096, 30522, 512),
}
"""Those of PetS's table 5."""

PetKind = Literal[
    "adapter",
    "mask",
    "diff",
    "bitfit",
    "lora",
    "dora",
    "adalora",
    "ia3",
    "compacter",
    "layer_norm",
    "prefix",
    "prompt",
    "dense_delta",
    "embedding_delta",
    "combined",
]
PET_OF: dict[PetKind, AnyPet] = {
    "adapter": Adapter(placement="houlsby", bottleneck=64, activation="gelu"),
    "mask": Mask(),
    "diff": Diff(),
    "bitfit": BitFit(),
    "lora": Lora(rank=8, alpha=16),
    "dora": Dora(rank=8, alpha=16),
    "adalora": AdaLora(rank=8, alpha=16),
    "ia3": Ia3(),
    "compacter": Compacter(
        placement="houlsby",
        bottleneck=64,
        activation="gelu",
        own_norms=False,
        phm_dim=4,
        phm_rank=1,
    ),
    "layer_norm": LayerNormTuning(),
    "prefix": Prefix(num_tokens=30),
    "prompt": Prompt(num_tokens=30),
    "dense_delta": DenseDelta(),
    "embedding_delta": EmbeddingDelta(),
    "combined": Combined(
        parts=(
            Prefix(num_tokens=30),
            Adapter(
                placement="pfeiffer",
                bottleneck=64,
                activation="relu",
                reads="input",
                own_norms=False,
            ),
        )
    ),
}
"""`combined` is the mix-and-match adapter of He et al., ICLR 2022."""

KINDS_OF_PETS: tuple[PetKind, ...] = ("adapter", "mask", "diff", "bitfit")
"""PetS draws each task's kind uniformly from these."""


def bytes_in_pets(pet: Pet, shape: BackboneShape) -> int | None:
    """Return what PetS holds of one task of the kind, None for the kinds that it does not have."""
    # Query, key and value are one matrix there: as many rows and weights as apart.
    rows = sum(shape.linear_shape(site)[0] for site in LINEAR_SITES)
    norms = 2 * 2 * shape.hidden_size
    if pet.kind == "adapter":
        specs = pet.tensor_specs(shape).values()
        return 4 * sum(math.prod(size or 0 for size in spec.shape) for spec in specs)
    if pet.kind == "bitfit":
        return 4 * shape.num_layers * (rows + norms)
    if pet.kind in ("mask", "diff"):
        num_stored = round(DENSITY[pet.kind] * num_weights(shape))
        replaced = 0 if pet.kind == "mask" else 4 * shape.num_layers * (rows + norms)
        return 8 * num_stored + 8 * shape.num_layers * rows + replaced
    return None


def mix_bytes_in_pets(shape: BackboneShape) -> int:
    """Return what PetS holds of a task of its mix, on average."""
    sizes = [bytes_in_pets(PET_OF[kind], shape) or 0 for kind in KINDS_OF_PETS]
    return round(sum(sizes) / len(sizes))


def num_weights(shape: BackboneShape) -> int:
    """Return how many weights the linear sites have."""
    return shape.num_layers * sum(math.prod(shape.linear_shape(site)) for site in LINEAR_SITES)
