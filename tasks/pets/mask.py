"""MaskBERT: single weights of the shared matrices are dropped. Zhao et al., EMNLP 2020.

Stored is which weights are dropped; their values are the backbone's. Biases and norms stay shared.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import LINEAR_SITES, BackboneShape, Site
from tasks.errors import TensorTypeMismatch
from tasks.gap_coding import encode_gaps, max_gap_bytes
from tasks.pets.pet import (
    Pet,
    StoredFloat,
    Tensors,
    TensorSpec,
    check_names,
    check_shape,
    decode_positions,
)
from tasks.site_ops import SiteOps, SparseDelta


class Mask(Pet):
    """Y = X (M * W)^T + b, with M 0 at the dropped weights of each linear site."""

    kind: Literal["mask"] = "mask"

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """`mask_gaps` at each linear site: the gap code of the dropped positions; may be empty."""
        specs = {}
        for layer in range(shape.num_layers):
            for site in LINEAR_SITES:
                num_out, num_in = shape.linear_shape(site)
                specs[f"layers.{layer}.{site}.mask_gaps"] = TensorSpec(
                    (None,), ("uint8",), max_gap_bytes(num_out * num_in)
                )
        return specs

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """A `sparse` op without values at each site where a weight is dropped."""
        ops: dict[tuple[int, Site], SiteOps] = {}
        for layer in range(shape.num_layers):
            for site in LINEAR_SITES:
                num_out, num_in = shape.linear_shape(site)
                name = f"layers.{layer}.{site}.mask_gaps"
                positions = decode_positions(name, tensors[name], num_out * num_in)
                if positions.size:
                    ops[layer, site] = SiteOps(sparse=SparseDelta(positions, values=None))
        return ops

    def encode(
        self, shape: BackboneShape, dense: Tensors, dtype: StoredFloat = "float16"
    ) -> dict[str, NDArray[Any]]:
        """Encode `layers.{i}.{site}.dropped`, bool [out, in]: True where the weight is dropped.

        A mask has no floats: `dtype` changes nothing.
        """
        sites = {
            f"layers.{layer}.{site}": TensorSpec(shape.linear_shape(site), ("bool",))
            for layer in range(shape.num_layers)
            for site in LINEAR_SITES
        }
        check_names(dense, {f"{site}.dropped": spec for site, spec in sites.items()})
        stored: dict[str, NDArray[Any]] = {}
        for site, spec in sites.items():
            dropped = dense[f"{site}.dropped"]
            check_shape(f"{site}.dropped", dropped.shape, spec)
            if dropped.dtype != np.bool_:
                raise TensorTypeMismatch(f"{site}.dropped is {dropped.dtype}: give bool")
            stored[f"{site}.mask_gaps"] = encode_gaps(np.flatnonzero(dropped), dropped.size)
        return stored
