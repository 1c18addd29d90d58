"""The registry of PET kinds, and their union as it stands in `task.json`."""

from typing import TYPE_CHECKING, Annotated, TypeAlias, Union

from pydantic import Field

from tasks.pets.combined import Combined
from tasks.pets.part_kinds import PART_KINDS
from tasks.pets.pet import Pet

_ALL: tuple[type[Pet], ...] = (*PART_KINDS, Combined)

PET_KINDS: dict[str, type[Pet]] = {kind.model_fields["kind"].default: kind for kind in _ALL}

if TYPE_CHECKING:
    AnyPet: TypeAlias = Pet
else:
    AnyPet = Annotated[Union[_ALL], Field(discriminator="kind")]  # noqa: UP007
