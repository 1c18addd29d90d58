"""The registry of PET kinds, and their union as it stands in `task.json`."""

from typing import Annotated

from pydantic import Field

from tasks.pets.adapter import Adapter
from tasks.pets.bitfit import BitFit
from tasks.pets.diff import Diff
from tasks.pets.ia3 import Ia3
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask
from tasks.pets.pet import Pet

PET_KINDS: dict[str, type[Pet]] = {
    "adapter": Adapter,
    "bitfit": BitFit,
    "diff": Diff,
    "ia3": Ia3,
    "lora": Lora,
    "mask": Mask,
}

AnyPet = Annotated[Adapter | BitFit | Diff | Ia3 | Lora | Mask, Field(discriminator="kind")]
