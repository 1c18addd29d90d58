"""Diff pruning: a sparse change of the shared weights. Guo, Rush, Kim, ACL 2021.

Biases and norms are small: their deltas are stored whole, as in PetS (there as replaced values).
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import LINEAR_SITES, NORM_SITES, BackboneShape, Site
from tasks.errors import TensorShapeMismatch
from tasks.gap_coding import encode_gaps, max_gap_bytes
from tasks.pets.pet import (
    Pet,
    StoredFloat,
    Tensors,
    TensorSpec,
    check_names,
    check_shape,
    decode_positions,
    to_float32,
    to_stored_float,
)
from tasks.site_ops import SiteOps, SparseDelta


class Diff(Pet):
    """Y = X (W + delta)^T + b + bias with a sparse delta, and deltas of both norms."""

    kind: Literal["diff"] = "diff"

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """`diff_gaps`, `diff_values`, `bias` at linear sites; `weight`, `bias` at norms."""
        specs = {}
        for layer in range(shape.num_layers):
            for site in LINEAR_SITES:
                num_out, num_in = shape.linear_shape(site)
                prefix = f"layers.{layer}.{site}"
                specs[f"{prefix}.diff_gaps"] = TensorSpec(
                    (None,), ("uint8",), max_gap_bytes(num_out * num_in)
                )
                specs[f"{prefix}.diff_values"] = TensorSpec((None,), ("float16",), num_out * num_in)
        return specs | self._whole_specs(shape)

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """`sparse` and `bias` ops at linear sites, norm deltas at norms."""
        ops: dict[tuple[int, Site], SiteOps] = {}
        for layer in range(shape.num_layers):
            for site in LINEAR_SITES:
                num_out, num_in = shape.linear_shape(site)
                prefix = f"layers.{layer}.{site}"
                ops[layer, site] = SiteOps(
                    bias=to_float32(tensors[f"{prefix}.bias"]),
                    sparse=_decode_delta(prefix, tensors, num_out * num_in),
                )
            for norm in NORM_SITES:
                ops[layer, norm] = SiteOps(
                    norm_weight=to_float32(tensors[f"layers.{layer}.{norm}.weight"]),
                    norm_bias=to_float32(tensors[f"layers.{layer}.{norm}.bias"]),
                )
        return ops

    def encode(
        self, shape: BackboneShape, dense: Tensors, dtype: StoredFloat = "float16"
    ) -> dict[str, NDArray[Any]]:
        """Encode `layers.{i}.{site}.delta` [out, in], mostly 0, beside the biases and norms.

        The delta's values are stored as float16 whatever `dtype` is; those that round to 0 are
        left out.
        """
        whole = self._whole_specs(shape)
        deltas = {
            f"layers.{layer}.{site}": TensorSpec(shape.linear_shape(site))
            for layer in range(shape.num_layers)
            for site in LINEAR_SITES
        }
        check_names(dense, whole | {f"{site}.delta": spec for site, spec in deltas.items()})
        stored: dict[str, NDArray[Any]] = {}
        for site, spec in deltas.items():
            name = f"{site}.delta"
            check_shape(name, dense[name].shape, spec)
            values = to_stored_float(name, dense[name], "float16").ravel()
            positions = np.flatnonzero(values)
            stored[f"{site}.diff_gaps"] = encode_gaps(positions, values.size)
            stored[f"{site}.diff_values"] = values[positions]
        for name, spec in whole.items():
            check_shape(name, dense[name].shape, spec)
            stored[name] = to_stored_float(name, dense[name], dtype)
        return stored

    def _whole_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        specs = {}
        for layer in range(shape.num_layers):
            for site in LINEAR_SITES:
                num_out, _ = shape.linear_shape(site)
                specs[f"layers.{layer}.{site}.bias"] = TensorSpec((num_out,))
            for norm in NORM_SITES:
                for tensor in ("weight", "bias"):
                    specs[f"layers.{layer}.{norm}.{tensor}"] = TensorSpec((shape.hidden_size,))
        return specs


def _decode_delta(prefix: str, tensors: Tensors, num_items: int) -> SparseDelta | None:
    positions = decode_positions(f"{prefix}.diff_gaps", tensors[f"{prefix}.diff_gaps"], num_items)
    values = tensors[f"{prefix}.diff_values"]
    if values.size != positions.size:
        raise TensorShapeMismatch(
            f"{prefix} has {positions.size} positions and {values.size} values: "
            f"write the artifact again"
        )
    if not positions.size:
        return None
    return SparseDelta(positions, to_float32(values))
