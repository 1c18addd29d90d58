"""Random weights of any kind of PET, for measuring: what an op costs does not depend on them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import LINEAR_SITES, NORM_SITES, BackboneShape
from tasks.pets.combined import Combined
from tasks.pets.diff import Diff
from tasks.pets.embedding_delta import EmbeddingDelta
from tasks.pets.mask import Mask
from tasks.pets.parts import part_prefix
from tasks.pets.pet import Pet

DENSITY = {"mask": 0.05, "diff": 0.005, "embedding_delta": 0.3}
"""Share of the weights that a mask drops and a diff changes (PetS, section 6); of changed words."""


def random_weights(
    pet: Pet, shape: BackboneShape, rng: np.random.Generator, density: float | None = None
) -> dict[str, NDArray[Any]]:
    """Return tensors in the dense form of the kind; floats are exact in float16.

    Each of them changes what the backbone computes, visibly and without destroying it.

    Args:
        pet: The kind and its hyper-parameters.
        shape: Of the backbone.
        rng: Source of everything random.
        density: Share of the weights that a mask drops or a diff changes, and of the words whose
            embeddings change. None: as in `DENSITY`.
    """
    if density is None:
        density = DENSITY.get(pet.kind, 0.0)
    if isinstance(pet, Combined):
        return {
            part_prefix(number) + name: values
            for number, part in enumerate(pet.parts)
            for name, values in random_weights(part, shape, rng).items()
        }
    if isinstance(pet, Mask):
        return {
            f"layers.{layer}.{site}.dropped": rng.random(shape.linear_shape(site)) < density
            for layer in range(shape.num_layers)
            for site in LINEAR_SITES
        }
    if isinstance(pet, Diff):
        return _random_diff(shape, rng, density)
    specs = pet.tensor_specs(shape)
    tensors: dict[str, NDArray[Any]] = {}
    if isinstance(pet, EmbeddingDelta):
        size = (shape.vocab_size, shape.embedding_size)
        is_changed = rng.random((shape.vocab_size, 1)) < density
        tensors["embeddings.words"] = is_changed * random_floats(rng, 0.1, *size)
        specs = {name: spec for name, spec in specs.items() if ".word_" not in name}
    for name, spec in specs.items():
        size_of = tuple(size for size in spec.shape if size is not None)
        tensors[name] = random_floats(rng, _spread(name), *size_of, centre=_centre(name))
    return tensors


def _spread(name: str) -> float:
    if name.endswith((".scale", "_keys", "_values", "compacter.rule", ".rule")):
        return 0.3
    return 0.01 if name.endswith(".delta") else 0.05


def _centre(name: str) -> float:
    is_factor = name.endswith((".scale", ".magnitude", ".lora_e"))
    return 1.0 if is_factor or name.endswith(("norm_before.weight", "norm_after.weight")) else 0.0


def _random_diff(
    shape: BackboneShape, rng: np.random.Generator, density: float
) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {}
    for layer in range(shape.num_layers):
        for site in LINEAR_SITES:
            size = shape.linear_shape(site)
            is_changed = rng.random(size) < density
            tensors[f"layers.{layer}.{site}.delta"] = is_changed * random_floats(rng, 0.2, *size)
            tensors[f"layers.{layer}.{site}.bias"] = random_floats(rng, 0.05, size[0])
        for norm in NORM_SITES:
            for name in ("weight", "bias"):
                key = f"layers.{layer}.{norm}.{name}"
                tensors[key] = random_floats(rng, 0.05, shape.hidden_size)
    return tensors


def random_floats(
    rng: np.random.Generator, spread: float, *size: int, centre: float = 0.0
) -> NDArray[np.float32]:
    """Return normal values with a standard deviation of `spread`, exact in float16."""
    return (centre + spread * rng.standard_normal(size)).astype(np.float16).astype(np.float32)
