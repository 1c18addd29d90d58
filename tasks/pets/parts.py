"""PETs made of others: their tensors side by side, their ops joined place by place."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import BackboneShape, Site
from tasks.errors import ArtifactError, PartsConflict
from tasks.pets.pet import Pet, StoredFloat, Tensors, TensorSpec, check_names, to_float32
from tasks.site_ops import LowRank, SiteOps

Ops = dict[tuple[int, Site], SiteOps]


def part_prefix(number: int) -> str:
    """Return what the names of a part's tensors begin with."""
    return f"parts.{number}."


def parts_specs(parts: Sequence[Pet], shape: BackboneShape) -> dict[str, TensorSpec]:
    """Return the tensors of all parts, each name behind its part's prefix."""
    return {
        part_prefix(number) + name: spec
        for number, part in enumerate(parts)
        for name, spec in part.tensor_specs(shape).items()
    }


def decode_parts(parts: Sequence[Pet], shape: BackboneShape, tensors: Tensors) -> Ops:
    """Return the joined ops of all parts.

    Raises:
        PartsConflict: If two parts change the same thing in ways that cannot be joined.
    """
    joined: Ops = {}
    for number, part in enumerate(parts):
        own = _of_part(number, tensors)
        for where, ops in part.decode(shape, own).items():
            joined[where] = join(joined[where], ops, where) if where in joined else ops
    return joined


def encode_parts(
    parts: Sequence[Pet], shape: BackboneShape, dense: Tensors, dtype: StoredFloat
) -> dict[str, NDArray[Any]]:
    """Encode each part's tensors, whose names begin with the part's prefix.

    Raises:
        TensorMismatch, NonFiniteWeights: As `Pet.encode`.
    """
    known = {
        name
        for number in range(len(parts))
        for name in dense
        if name.startswith(part_prefix(number))
    }
    check_names(dense, dict.fromkeys(known))
    stored: dict[str, NDArray[Any]] = {}
    for number, part in enumerate(parts):
        try:
            encoded = part.encode(shape, _of_part(number, dense), dtype)
        except ArtifactError as error:
            raise type(error)(f"part {number}: {error}") from error
        stored |= {part_prefix(number) + name: values for name, values in encoded.items()}
    return stored


def join(first: SiteOps, second: SiteOps, where: tuple[int, Site]) -> SiteOps:
    """Return what two parts do to one place together: biases and offsets add up.

    Raises:
        PartsConflict: If both have the same op and it is not one that adds up, or one scales the
            output that the other adds to.
    """
    changes: dict[str, Any] = {}
    for field in fields(SiteOps):
        ours, theirs = getattr(first, field.name), getattr(second, field.name)
        if field.name == "position_offset":
            changes[field.name] = ours + theirs
        elif theirs is None or ours is None:
            changes[field.name] = ours if theirs is None else theirs
        elif field.name in ("bias", "norm_weight", "norm_bias"):
            changes[field.name] = to_float32(ours + theirs)
        elif field.name == "low_rank" and ours.gate is theirs.gate is None:
            changes[field.name] = _stack(ours, theirs)
        else:
            layer, site = where
            raise PartsConflict(
                f"two parts have {field.name} at {site} of layer {layer}: a backbone's place holds "
                f"one; leave one of them out"
            )
    joined = replace(first, **changes)
    if joined.magnitude is not None and (
        joined.output_scale is not None or joined.input_scale is not None
    ):
        raise PartsConflict(
            f"a part scales {where[1]}, whose weight another part normalises (DoRA)"
        )
    return joined


def _stack(first: LowRank, second: LowRank) -> LowRank:
    return LowRank(
        a=to_float32(np.concatenate([first.a, second.a])),
        b=to_float32(np.concatenate([first.scale * first.b, second.scale * second.b], axis=1)),
        scale=1.0,
    )


def _of_part(number: int, tensors: Tensors) -> dict[str, NDArray[Any]]:
    prefix = part_prefix(number)
    return {
        name.removeprefix(prefix): values
        for name, values in tensors.items()
        if name.startswith(prefix)
    }
