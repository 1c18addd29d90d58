"""Random weights of any kind of PET, for measuring: what an op costs does not depend on them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import LINEAR_SITES, NORM_SITES, BackboneShape
from tasks.pets.kinds import AnyPet

DENSITY = {"mask": 0.05, "diff": 0.005}
"""Share of the weights that a mask drops and a diff changes (PetS, section 6)."""


def random_weights(
    pet: AnyPet, shape: BackboneShape, rng: np.random.Generator, density: float | None = None
) -> dict[str, NDArray[Any]]:
    """Return tensors in the dense form of the kind; floats are exact in float16.

    Each of them changes what the backbone computes, visibly and without destroying it.

    Args:
        pet: The kind and its hyper-parameters.
        shape: Of the backbone.
        rng: Source of everything random.
        density: Share of the weights that a mask drops or a diff changes. None: as in `DENSITY`.
    """
    if density is None:
        density = DENSITY.get(pet.kind, 0.0)
    if pet.kind == "mask":
        return {
            f"layers.{layer}.{site}.dropped": rng.random(shape.linear_shape(site)) < density
            for layer in range(shape.num_layers)
            for site in LINEAR_SITES
        }
    if pet.kind == "diff":
        tensors: dict[str, NDArray[Any]] = {}
        for layer in range(shape.num_layers):
            for site in LINEAR_SITES:
                size = shape.linear_shape(site)
                is_changed = rng.random(size) < density
                tensors[f"layers.{layer}.{site}.delta"] = is_changed * random_floats(
                    rng, 0.2, *size
                )
                tensors[f"layers.{layer}.{site}.bias"] = random_floats(rng, 0.05, size[0])
            for norm in NORM_SITES:
                for name in ("weight", "bias"):
                    key = f"layers.{layer}.{norm}.{name}"
                    tensors[key] = random_floats(rng, 0.05, shape.hidden_size)
        return tensors
    return {
        name: random_floats(
            rng,
            0.3 if name.endswith(".scale") else 0.05,
            *(size for size in spec.shape if size is not None),
            centre=1.0 if name.endswith(".scale") else 0.0,
        )
        for name, spec in pet.tensor_specs(shape).items()
    }


def random_floats(
    rng: np.random.Generator, spread: float, *size: int, centre: float = 0.0
) -> NDArray[np.float32]:
    """Return normal values with a standard deviation of `spread`, exact in float16."""
    return (centre + spread * rng.standard_normal(size)).astype(np.float16).astype(np.float32)
