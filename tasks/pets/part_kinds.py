"""The PET kinds that are not made of others, those of other distributions included."""

import logging
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, TypeAlias, Union

from pydantic import Field

from tasks.pets.adalora import AdaLora
from tasks.pets.adapter import Adapter
from tasks.pets.bitfit import BitFit
from tasks.pets.compacter import Compacter
from tasks.pets.dense_delta import DenseDelta
from tasks.pets.diff import Diff
from tasks.pets.dora import Dora
from tasks.pets.embedding_delta import EmbeddingDelta
from tasks.pets.ia3 import Ia3
from tasks.pets.layer_norm import LayerNormTuning
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask
from tasks.pets.pet import Pet
from tasks.pets.prefix import Prefix
from tasks.pets.prompt import Prompt

logger = logging.getLogger(__name__)

ENTRY_POINTS = "petstream.pet_kinds"
"""The group under which a distribution names its classes; see docs/add-a-pet-kind.md."""

_OWN: tuple[type[Pet], ...] = (
    AdaLora, Adapter, BitFit, Compacter, DenseDelta, Diff, Dora, EmbeddingDelta, Ia3,
    LayerNormTuning, Lora, Mask, Prefix, Prompt,
)  # fmt: skip


def _of_others() -> list[type[Pet]]:
    """Return the kinds that installed distributions name; one that cannot be had is logged."""
    found: list[type[Pet]] = []
    names = {kind.model_fields["kind"].default for kind in _OWN} | {"combined"}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            kind = entry.load()
        except Exception:
            logger.exception("PET kind %s of %s cannot be imported", entry.name, entry.value)
            continue
        is_kind = isinstance(kind, type) and issubclass(kind, Pet)
        if not is_kind or kind.model_fields["kind"].default != entry.name or entry.name in names:
            logger.error(
                "PET kind %s of %s is left out: it must be a Pet whose kind is that name, and no "
                "other kind's",
                entry.name,
                entry.value,
            )
            continue
        names.add(entry.name)
        found.append(kind)
    return found


PART_KINDS: tuple[type[Pet], ...] = (*_OWN, *_of_others())

if TYPE_CHECKING:
    AnyPart: TypeAlias = Pet
else:
    AnyPart = Annotated[Union[PART_KINDS], Field(discriminator="kind")]  # noqa: UP007
