"""A task's weights by kind of PET: bytes on disk and in a worker's memory, and time to load.

    python benchmarks/bench_task_bytes.py [--json]

Synthetic weights of the sizes and densities that PetS used: adapters with a bottleneck of 64,
masks that drop 5 % of the weights, diffs of 0.5 %. Without the head, which PetS does not store.
PetS's own figures are computed as its artifact holds them in GPU memory (fp32, CSR with an int32
column and two int32 per row); for BERT-base they are the published ones. What they compare with is
our memory, not our disk. Loading is parsing, checking and decoding of bytes in memory, one thread,
the median of several.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.document import make_document
from gpu_ops.layer_norm import NormWeights
from tasks.backbone_shape import LINEAR_SITES, NORM_SITES, BackboneShape
from tasks.pets.adalora import AdaLora
from tasks.pets.adapter import Adapter
from tasks.pets.bitfit import BitFit
from tasks.pets.compacter import Compacter
from tasks.pets.dense_delta import DenseDelta
from tasks.pets.diff import Diff
from tasks.pets.dora import Dora
from tasks.pets.ia3 import Ia3
from tasks.pets.kinds import AnyPet
from tasks.pets.layer_norm import LayerNormTuning
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask
from tasks.pets.pet import Pet
from tasks.pets.prefix import Prefix
from tasks.pets.prompt import Prompt
from tasks.pets.random_weights import DENSITY, random_weights
from tasks.site_ops import PetWeights
from tasks.weight_file import parse_tensors, to_bytes
from workers.backbone import (
    PRODUCTS,
    SITES_OF,
    Backbone,
    EmbeddingWeights,
    LinearWeights,
    Product,
)
from workers.task_ops import build_task_ops

SHAPES = {
    "minilm-l3": BackboneShape(3, 384, 12, 1536, 30522, 512),
    "minilm-l6": BackboneShape(6, 384, 12, 1536, 30522, 512),
    "bert-base": BackboneShape(12, 768, 12, 3072, 30522, 512),
}
PETS: dict[str, AnyPet] = {
    "adapter, Houlsby, 64": Adapter(placement="houlsby", bottleneck=64, activation="gelu"),
    "adapter, Pfeiffer, 64": Adapter(placement="pfeiffer", bottleneck=64, activation="gelu"),
    "mask, 5 % dropped": Mask(),
    "diff, 0.5 % changed": Diff(),
    "BitFit": BitFit(),
    "LoRA, rank 8, all sites": Lora(rank=8, alpha=16),
    "DoRA, rank 8, all sites": Dora(rank=8, alpha=16),
    "AdaLoRA, rank 8": AdaLora(rank=8, alpha=16),
    "IA3": Ia3(),
    "Compacter, Houlsby, 64": Compacter(
        placement="houlsby",
        bottleneck=64,
        activation="gelu",
        own_norms=False,
        phm_dim=4,
        phm_rank=1,
    ),
    "LayerNorm tuning": LayerNormTuning(),
    "prefix, 30 tokens": Prefix(num_tokens=30),
    "prompt, 30 tokens": Prompt(num_tokens=30),
    "full fine-tune, dense": DenseDelta(),
}
MIX = ("adapter, Houlsby, 64", "mask, 5 % dropped", "diff, 0.5 % changed", "BitFit")
"""PetS draws each task's kind uniformly from these four."""
NUM_LOADS = 5


def resident_bytes(pet: Pet, backbone: Backbone, tensors: Mapping[str, NDArray[Any]]) -> int:
    """Return what a worker holds in memory of these stored tensors."""
    head = np.zeros((1, backbone.shape.hidden_size), np.float32)
    weights = PetWeights(
        kind=pet.kind,
        sites=pet.decode(backbone.shape, dict(tensors)),
        head_weight=head,
        head_bias=head[0, :1],
        num_bytes=0,
    )
    return build_task_ops(weights, backbone).num_bytes - head.nbytes - head[0, :1].nbytes


def empty_backbone(shape: BackboneShape) -> Backbone:
    """Return a backbone without contents: tasks are laid out by its shapes alone."""
    norm = NormWeights(torch.empty(shape.hidden_size), torch.empty(shape.hidden_size))
    products: dict[tuple[int, Product], LinearWeights] = {}
    for product in PRODUCTS:
        sizes = [shape.linear_shape(site) for site in SITES_OF[product]]
        num_out = sum(size[0] for size in sizes)
        weights = LinearWeights(torch.empty(num_out, sizes[0][1]), torch.empty(num_out))
        products |= {(layer, product): weights for layer in range(shape.num_layers)}
    return Backbone(
        name="empty",
        digest="",
        shape=shape,
        num_token_types=2,
        activation="gelu",
        layer_norm_eps=1e-12,
        embeddings=EmbeddingWeights(torch.empty(0), torch.empty(0), norm),
        products=products,
        norms={(layer, site): norm for layer in range(shape.num_layers) for site in NORM_SITES},
        pooler=None,
    )


def pets_bytes(pet: Pet, shape: BackboneShape) -> int | None:
    """Return what PetS holds of the kind, None for the kinds that it does not have."""
    # Query, key and value are one matrix there: as many rows and weights as apart.
    rows = sum(shape.linear_shape(site)[0] for site in LINEAR_SITES)
    norms = 2 * 2 * shape.hidden_size
    if pet.kind == "adapter":
        specs = pet.tensor_specs(shape).values()
        return 4 * sum(math.prod(size or 0 for size in spec.shape) for spec in specs)
    if pet.kind == "bitfit":
        return 4 * shape.num_layers * (rows + norms)
    if pet.kind in DENSITY:
        num_stored = round(DENSITY[pet.kind] * num_weights(shape))
        replaced = 0 if pet.kind == "mask" else 4 * shape.num_layers * (rows + norms)
        return 8 * num_stored + 8 * shape.num_layers * rows + replaced
    return None


def num_weights(shape: BackboneShape) -> int:
    """Return how many weights the linear sites have."""
    return shape.num_layers * sum(math.prod(shape.linear_shape(site)) for site in LINEAR_SITES)


def entropy_bytes(pet: Pet, shape: BackboneShape) -> int | None:
    """Return the entropy of random positions at the kind's density, the least any code needs."""
    if pet.kind not in DENSITY:
        return None
    density = DENSITY[pet.kind]
    bits = -density * math.log2(density) - (1 - density) * math.log2(1 - density)
    return round(num_weights(shape) * bits / 8)


def position_bytes(tensors: Mapping[str, NDArray[Any]]) -> int | None:
    """Return the bytes of all gap codes, None where there are none."""
    sizes = [values.nbytes for name, values in tensors.items() if name.endswith("_gaps")]
    return sum(sizes) if sizes else None


def load_ms(pet: Pet, shape: BackboneShape, raw: bytes) -> float:
    """Return the median time to parse, check and decode a weight file."""
    specs = pet.tensor_specs(shape)
    times_ms = []
    for _ in range(NUM_LOADS):
        started = time.perf_counter()
        pet.decode(shape, parse_tensors(raw, specs, "level-0.safetensors"))
        times_ms.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times_ms)


def measure(backbone: str, shape: BackboneShape) -> list[dict[str, Any]]:
    """Return one row per kind, and one of PetS's mix."""
    rows: list[dict[str, Any]] = []
    empty = empty_backbone(shape)
    for name, pet in PETS.items():
        tensors = pet.encode(shape, random_weights(pet, shape, np.random.default_rng(0)))
        raw = to_bytes(tensors)
        rows.append(
            {
                "backbone": backbone,
                "pet": name,
                "disk_bytes": len(raw),
                "resident_bytes": resident_bytes(pet, empty, tensors),
                "pets_bytes": pets_bytes(pet, shape),
                "position_bytes": position_bytes(tensors),
                "entropy_bytes": entropy_bytes(pet, shape),
                "load_ms": load_ms(pet, shape, raw),
            }
        )
    mixed = [row for row in rows if row["pet"] in MIX]
    mean = {
        field: round(statistics.mean(row[field] for row in mixed))
        for field in ("disk_bytes", "resident_bytes", "pets_bytes")
    }
    return [*rows, {"backbone": backbone, "pet": "PetS's mix of four", **mean}]


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the rows for people."""
    print(
        f"{'backbone':11}{'PET':26}{'on disk':>12}{'resident':>12}{'PetS':>12}{'ratio':>7}"
        f"{'load ms':>9}"
    )
    for row in rows:
        pets = row["pets_bytes"]
        resident = row["resident_bytes"]
        compared = f"{pets:>12,}{pets / resident:>7.2f}" if pets else f"{'-':>12}{'-':>7}"
        loading = f"{row['load_ms']:>9.2f}" if "load_ms" in row else ""
        sizes = f"{row['disk_bytes']:>12,}{resident:>12,}"
        print(f"{row['backbone']:11}{row['pet']:26}{sizes}{compared}{loading}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Bytes per task and kind of PET.")
    parser.add_argument("--json", action="store_true", help="one JSON document on the last line")
    as_json = parser.parse_args().json
    rows = [row for backbone, shape in SHAPES.items() for row in measure(backbone, shape)]
    if as_json:
        print(json.dumps(make_document(rows, goals=[])))
    else:
        print_table(rows)


if __name__ == "__main__":
    main()
