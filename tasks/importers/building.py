"""PETs and their dense tensors as importers put them together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from tasks.backbone_shape import BackboneShape
from tasks.errors import BadCheckpoint, KindUnsupported
from tasks.pets.combined import Combined
from tasks.pets.parts import part_prefix
from tasks.pets.pet import Pet, check_names, check_shape

DenseTensors = Mapping[str, NDArray[np.float32]]
_P = TypeVar("_P", bound=Pet)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One PET in the dense form."""

    pet: Pet
    tensors: DenseTensors


def build(kind: type[_P], **fields: Any) -> _P:  # noqa: ANN401
    """Make a PET of hyperparameters that come from a checkpoint.

    Raises:
        KindUnsupported: If they are beyond what the kind allows.
    """
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        name = kind.model_fields["kind"].default
        raise KindUnsupported(
            f"the checkpoint's {name} goes beyond what one can be here ({where}: {first['msg']})"
        ) from error


def combine(parts: Sequence[Part], shape: BackboneShape) -> Part:
    """Return one PET of one or several, which fits the backbone.

    Raises:
        KindUnsupported: If there is none, or there are too many.
        PartsConflict: If they do not go together.
        TensorMismatch, RankOutOfRange, SiteNotFound, TooManyTokens: If they do not fit.
    """
    if not parts:
        raise KindUnsupported(
            "the configuration adds nothing to the backbone: import the head only"
        )
    whole = parts[0]
    if len(parts) > 1:
        whole = Part(
            build(Combined, parts=tuple(part.pet for part in parts)),
            {
                part_prefix(number) + name: tensor
                for number, part in enumerate(parts)
                for name, tensor in part.tensors.items()
            },
        )
    specs = whole.pet.tensor_specs(shape)
    if isinstance(whole.pet, Combined):
        # Parts that cannot be joined show when they are.
        check_names(whole.tensors, specs)
        whole.pet.decode(shape, whole.tensors)
    for name, spec in specs.items():
        check_shape(name, whole.tensors[name].shape, spec)
    return whole


def float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Round to float32.

    Raises:
        BadCheckpoint: If a value is not finite, or beyond float32.
    """
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(rounded).all():
        raise BadCheckpoint("what the checkpoint's tensors multiply to is beyond float32")
    return rounded
