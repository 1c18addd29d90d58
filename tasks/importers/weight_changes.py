"""How the change of a full fine-tune's matrices is kept: sparse, of low rank, or whole."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import LINEAR_SITES, BackboneShape, LinearSite
from tasks.importers.part import Part, build
from tasks.importers.site_patterns import names_of
from tasks.pets.dense_delta import DenseDelta
from tasks.pets.diff import Diff
from tasks.pets.lora import Lora

DeltaMethod = Literal["auto", "sparse", "low-rank", "dense"]
Changes = Mapping[tuple[int, LinearSite], NDArray[np.float32]]
"""Where a matrix changed -> by how much."""

_AUTO_ERROR = 1e-2
"""Largest relative error with which `auto` takes a low rank."""
_AUTO_DENSITY = 0.05
"""Largest share of changed weights that `auto` takes as sparse."""
_AUTO_RANKS = 4
"""`auto` takes a low rank up to so many times below the full one: beyond, whole is no larger."""


@dataclass(frozen=True, slots=True)
class DeltaOptions:
    """How much of a change is kept."""

    method: DeltaMethod = "auto"
    rank: int = 16
    """Of `low-rank`."""
    density: float = 0.01
    """Share of each matrix's weights that `sparse` keeps, the most changed ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What is kept of the changes."""

    part: Part
    method: DeltaMethod
    errors: Mapping[tuple[int, LinearSite], float]
    """Per matrix: length of what is lost over that of the change (Frobenius norms)."""


def keep(changes: Changes, options: DeltaOptions, shape: BackboneShape) -> Kept:
    """Return a PET for the changes, of which there is at least one.

    Raises:
        KindUnsupported: If the rank is beyond what a task can have.
    """
    method, rank = options.method, options.rank
    if method == "auto":
        method, rank = _choose(changes)
    if method == "sparse":
        is_exact = options.method == "auto"
        density = 1.0 if is_exact else options.density
        return _kept(changes, "sparse", lambda c: _largest(c, density), _sparse_part, shape)
    if method == "dense":
        return _kept(changes, "dense", lambda change: change, _dense_part, shape)
    return _keep_low_rank(changes, rank, shape)


def _choose(changes: Changes) -> tuple[DeltaMethod, int]:
    shares = [np.count_nonzero(change) / change.size for change in changes.values()]
    if max(shares) <= _AUTO_DENSITY:
        return "sparse", 0
    rank = 0
    for change in changes.values():
        values = np.linalg.svd(change.astype(np.float64), compute_uv=False)
        # lost[r]: length of what rank r leaves out, over that of all
        lost = np.sqrt(np.append(np.cumsum(values[::-1] ** 2)[::-1], 0.0))
        rank = max(rank, int(np.argmax(lost <= _AUTO_ERROR * lost[0])))
        if rank * _AUTO_RANKS > min(change.shape):
            return "dense", 0
    return "low-rank", rank


def _keep_low_rank(changes: Changes, rank: int, shape: BackboneShape) -> Kept:
    tensors: dict[str, NDArray[Any]] = {}
    errors = {}
    ranks = {place: min(rank, *change.shape) for place, change in changes.items()}
    for (layer, site), change in changes.items():
        kept_rank = ranks[layer, site]
        left, values, right = np.linalg.svd(change.astype(np.float64), full_matrices=False)
        # Half of each singular value on either side, so that both suit float16.
        roots = np.sqrt(values[:kept_rank])
        b = (left[:, :kept_rank] * roots).astype(np.float32)
        a = (roots[:, None] * right[:kept_rank]).astype(np.float32)
        tensors[f"layers.{layer}.{site}.lora_a"] = a
        tensors[f"layers.{layer}.{site}.lora_b"] = b
        errors[layer, site] = _error(change, b @ a)
    largest = max(ranks.values())
    # alpha / rank is 1 at every place: all matrices have at least that rank, or alpha follows it.
    pattern = {f"{i}.{site}": float(r) for (i, site), r in ranks.items() if r != largest}
    pet = build(
        Lora,
        rank=largest,
        alpha=float(largest),
        sites=names_of(changes, shape),
        rank_pattern={name: int(r) for name, r in pattern.items()} or None,
        alpha_pattern=pattern or None,
    )
    return Kept(Part(pet, tensors), "low-rank", errors)


def _kept(
    changes: Changes,
    method: DeltaMethod,
    pick: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    make: Callable[[Changes, BackboneShape], Part],
    shape: BackboneShape,
) -> Kept:
    picked = {place: pick(change) for place, change in changes.items()}
    errors = {place: _error(change, picked[place]) for place, change in changes.items()}
    return Kept(make(picked, shape), method, errors)


def _largest(change: NDArray[np.float32], density: float) -> NDArray[np.float32]:
    """Return the most changed weights as float16 stores them, zeros elsewhere."""
    number = min(change.size, max(1, round(density * change.size)))
    order = np.argsort(np.abs(change), axis=None, kind="stable")[change.size - number :]
    kept = np.zeros_like(change)
    kept.flat[order] = change.flat[order].astype(np.float16)
    return kept


def _sparse_part(changes: Changes, shape: BackboneShape) -> Part:
    tensors = {
        name: np.zeros([size or 0 for size in spec.shape], np.float32)
        for name, spec in Diff().tensor_specs(shape).items()
        if not name.endswith((".diff_gaps", ".diff_values"))
    }
    return Part(Diff(), tensors | _whole(changes, shape))


def _dense_part(changes: Changes, shape: BackboneShape) -> Part:
    return Part(DenseDelta(), _whole(changes, shape))


def _whole(changes: Changes, shape: BackboneShape) -> dict[str, NDArray[np.float32]]:
    return {
        f"layers.{layer}.{site}.delta": changes[layer, site]
        if (layer, site) in changes
        else np.zeros(shape.linear_shape(site), np.float32)
        for layer in range(shape.num_layers)
        for site in LINEAR_SITES
    }


def _error(change: NDArray[np.float32], kept: NDArray[np.float32]) -> float:
    lost = np.linalg.norm(change.astype(np.float64) - kept)
    return float(lost / np.linalg.norm(change.astype(np.float64)))
