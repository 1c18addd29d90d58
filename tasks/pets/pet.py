"""What every PET kind has: hyperparameters, an exact list of tensors, a way in and a way out.

A kind's hyperparameters are its fields, as they stand in `task.json`. Its tensors have a
*dense form*, which training recipes produce, and a *stored form*, which files hold; for most
kinds they differ in the element type only.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tasks.backbone_shape import BackboneShape, Site
from tasks.errors import (
    BadIndices,
    MissingTensor,
    NonFiniteWeights,
    TensorShapeMismatch,
    TensorTypeMismatch,
    UnexpectedTensor,
)
from tasks.gap_coding import GapCodeError, decode_gaps
from tasks.site_ops import SiteOps

Tensors = Mapping[str, NDArray[Any]]
StoredFloat = Literal["float16", "float32"]

FLOATS = ("float16", "float32")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a stored tensor must be."""

    shape: tuple[int | None, ...]
    """None: any length up to `max_items`; only for vectors."""
    dtypes: tuple[str, ...] = FLOATS
    """Names of the numpy element types allowed."""
    max_items: int | None = None

    @property
    def max_bytes(self) -> int:
        """The size of the largest tensor that fits."""
        items = self.max_items
        if items is None:
            items = int(np.prod([size or 0 for size in self.shape], dtype=np.int64))
        return items * max(np.dtype(name).itemsize for name in self.dtypes)


class Pet(BaseModel, ABC):
    """One PET kind; a value of it is the kind with its hyperparameters."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    kind: str

    def reserved_positions(self) -> int:
        """Return how many of the backbone's positions rows of the task cannot have."""
        return 0

    @abstractmethod
    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """Return what each tensor must be; all are required and there are no others.

        Raises:
            RankOutOfRange: If a hyperparameter does not fit the backbone.
        """

    @abstractmethod
    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """Turn tensors that fit `tensor_specs` into ops.

        Raises:
            TensorShapeMismatch: If tensors that belong together differ in length.
            BadIndices: If a gap code is damaged.
        """

    def encode(
        self, shape: BackboneShape, dense: Tensors, dtype: StoredFloat = "float16"
    ) -> dict[str, NDArray[Any]]:
        """Turn the dense form into the stored form.

        Args:
            shape: The backbone that the tensors were trained on.
            dense: Exactly the kind's tensors, as `docs/tasks.md` lists them.
            dtype: How floats are stored.

        Raises:
            TensorMismatch: If the tensors are not the kind's.
            NonFiniteWeights: If a value is not finite, or too large for `dtype`.
        """
        specs = self.tensor_specs(shape)
        check_names(dense, specs)
        stored = {}
        for name, spec in specs.items():
            check_shape(name, dense[name].shape, spec)
            stored[name] = to_stored_float(name, dense[name], dtype)
        return stored


def check_names(tensors: Tensors, expected: Mapping[str, object]) -> None:
    """Check that `tensors` has exactly the expected names.

    Raises:
        MissingTensor: If one is absent.
        UnexpectedTensor: If there is another.
    """
    missing = sorted(expected.keys() - tensors.keys())
    if missing:
        raise MissingTensor(f"{_some(missing)} missing: write the artifact again with all tensors")
    unexpected = sorted(tensors.keys() - expected.keys())
    if unexpected:
        raise UnexpectedTensor(f"{_some(unexpected)} not among the kind's tensors: leave it out")


def check_shape(name: str, found: tuple[int, ...], spec: TensorSpec) -> None:
    """Check a tensor's shape.

    Raises:
        TensorShapeMismatch: If it does not fit.
    """
    fits = len(found) == len(spec.shape) and all(
        wanted is None or wanted == size for size, wanted in zip(found, spec.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in spec.shape)
        raise TensorShapeMismatch(
            f"{name} has shape {_shape(found)}, expected [{wanted}]: the task was trained for "
            f"another backbone or another number of labels"
        )
    if spec.max_items is not None and found[0] > spec.max_items:
        raise TensorShapeMismatch(
            f"{name} has {found[0]} items, at most {spec.max_items} make sense: write it again"
        )


def to_stored_float(name: str, values: NDArray[Any], dtype: StoredFloat) -> NDArray[Any]:
    """Convert to the stored element type.

    Raises:
        TensorTypeMismatch: If the values are not floats.
        NonFiniteWeights: If a value is not finite, or not in the range of `dtype`.
    """
    if not np.issubdtype(values.dtype, np.floating):
        raise TensorTypeMismatch(f"{name} is {values.dtype}: give floats")
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(values, dtype)
    if not np.isfinite(stored).all():
        raise NonFiniteWeights(
            f"{name} has values that are not finite as {dtype}: train again with a smaller "
            f"learning rate, or store float32"
        )
    return stored


def to_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return a read-only, contiguous float32 array."""
    result = np.ascontiguousarray(values, np.float32)
    result.flags.writeable = False
    return result


def decode_positions(name: str, code: NDArray[Any], num_items: int) -> NDArray[np.int32]:
    """Decode a gap code to read-only positions.

    Raises:
        BadIndices: If it is damaged or points outside the matrix.
    """
    try:
        positions = decode_gaps(code, num_items)
    except GapCodeError as error:
        raise BadIndices(f"{name}: {error}: write the artifact again") from error
    positions.flags.writeable = False
    return positions


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name)[:100] for name in names[:3])
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{shown}{rest}"


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
