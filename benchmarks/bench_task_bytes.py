"""A task's weights by kind of PET: bytes on disk and in a worker's memory, and time to load.

    python benchmarks/bench_task_bytes.py [--json]

Synthetic weights of the sizes and densities that PetS used, and PetS's own bytes, are those of
`petstream.benchmarks.pet_sizes`. Without the head, which PetS does not store. What PetS's bytes
compare with is our memory, not our disk; `petstream bench capacity` measures it as the process
grows. Loading is parsing, checking and decoding of bytes in memory, one thread, the median of
several.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petstream.benchmarks.document import make_document
from petstream.benchmarks.pet_sizes import (
    KINDS_OF_PETS,
    PET_OF,
    SHAPES,
    PetKind,
    bytes_in_pets,
    num_weights,
)
from petstream.benchmarks.synthetic_backbone import empty_backbone
from tasks.backbone_shape import BackboneShape
from tasks.pets.adapter import Adapter
from tasks.pets.kinds import AnyPet
from tasks.pets.pet import Pet
from tasks.pets.random_weights import DENSITY, random_weights
from tasks.site_ops import PetWeights
from tasks.weight_file import parse_tensors, to_bytes
from workers.backbone import Backbone
from workers.task_ops import build_task_ops

MEASURED_SHAPES = {
    "minilm-l3": BackboneShape(3, 384, 12, 1536, 30522, 512),
    "minilm-l6": BackboneShape(6, 384, 12, 1536, 30522, 512),
    "bert-base": SHAPES["bert-base"],
}
NAMES: dict[PetKind, str] = {
    "adapter": "adapter, Houlsby, 64",
    "mask": "mask, 5 % dropped",
    "diff": "diff, 0.5 % changed",
    "bitfit": "BitFit",
    "lora": "LoRA, rank 8, all sites",
    "dora": "DoRA, rank 8, all sites",
    "adalora": "AdaLoRA, rank 8",
    "ia3": "IA3",
    "compacter": "Compacter, Houlsby, 64",
    "layer_norm": "LayerNorm tuning",
    "prefix": "prefix, 30 tokens",
    "prompt": "prompt, 30 tokens",
    "dense_delta": "full fine-tune, dense",
}
PETS: dict[str, AnyPet] = {name: PET_OF[kind] for kind, name in NAMES.items()} | {
    "adapter, Pfeiffer, 64": Adapter(placement="pfeiffer", bottleneck=64, activation="gelu")
}
MIX = tuple(NAMES[kind] for kind in KINDS_OF_PETS)
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
                "pets_bytes": bytes_in_pets(pet, shape),
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
    rows = [row for backbone, shape in MEASURED_SHAPES.items() for row in measure(backbone, shape)]
    if as_json:
        print(json.dumps(make_document(rows, goals=[])))
    else:
        print_table(rows)


if __name__ == "__main__":
    main()
