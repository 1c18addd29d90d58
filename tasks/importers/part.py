"""One of the PETs that a checkpoint holds, and how several become one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from numpy.typing import NDArray
from pydantic import ValidationError

from messages.validation_fault import first_fault
from tasks.backbone_shape import BackboneShape
from tasks.errors import KindUnsupported
from tasks.pets.bitfit import BitFit
from tasks.pets.combined import Combined
from tasks.pets.parts import part_prefix
from tasks.pets.pet import Pet

_P = TypeVar("_P", bound=Pet)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A PET with its tensors in the dense form."""

    pet: Pet
    tensors: Mapping[str, NDArray[Any]]


def build(kind: type[_P], **fields: Any) -> _P:  # noqa: ANN401 - one per hyperparameter
    """Return a PET whose hyperparameters a checkpoint gave.

    Raises:
        KindUnsupported: If one is beyond what the kind can have.
    """
    try:
        return kind(**fields)
    except ValidationError as error:
        raise KindUnsupported(
            f"the checkpoint's {kind.model_fields['kind'].default} cannot be one here: "
            f"{first_fault(error, 'it')}"
        ) from error


def combine(parts: Sequence[Part], shape: BackboneShape) -> Part:
    """Return one PET that does what all parts do; without any, one that changes nothing.

    Raises:
        KindUnsupported: If there are more than a combined PET can have.
        PartsConflict: If two parts change the same thing in ways that cannot be joined.
        TensorMismatch, RankOutOfRange, SiteNotFound, TooManyTokens: If one does not fit.
    """
    if not parts:
        return Part(BitFit(sites=()), {})
    if len(parts) == 1:
        parts[0].pet.tensor_specs(shape)
        return parts[0]
    pet = build(Combined, parts=tuple(part.pet for part in parts))
    tensors = {
        part_prefix(number) + name: values
        for number, part in enumerate(parts)
        for name, values in part.tensors.items()
    }
    pet.decode(shape, pet.encode(shape, tensors, "float32"))
    return Part(pet, tensors)
