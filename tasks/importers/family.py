"""How transformers names the places of a backbone, for the families whose layers are BERT's."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.backbone_shape import SITE_MODULES, Site

WORDS = "embeddings.word_embeddings"
POSITIONS = "embeddings.position_embeddings"
TOKEN_TYPES = "embeddings.token_type_embeddings"
EMBEDDING_NORM = "embeddings.LayerNorm"


@dataclass(frozen=True, slots=True)
class BackboneFamily:
    """The names of one family."""

    model_type: str
    """As in `config.json`."""
    prefix: str
    """Of the base model within a model with a head, without the dot."""

    def module_path(self, layer: int, site: Site) -> str:
        """Return a site's module within the base model."""
        return f"encoder.layer.{layer}.{SITE_MODULES[site]}"  # type: ignore[index]  # no module else

    def place(self, module_path: str) -> tuple[int, Site] | None:
        """Return the layer and site of a module, None for one that is no site."""
        path = module_path.removeprefix(f"{self.prefix}.")
        match = re.fullmatch(r"encoder\.layer\.(0|[1-9]\d{0,5})\.(.+)", path)
        if match is None:
            return None
        found = (site for site, module in SITE_MODULES.items() if module == match[2])
        site = next(found, None)
        return None if site is None else (int(match[1]), site)

    def first_position(self, config: Mapping[str, Any]) -> int:
        """Return the row of the position table that the first token of a row reads."""
        del config
        return 0


FAMILIES: Mapping[str, BackboneFamily] = {
    name: BackboneFamily(name, name) for name in ("bert", "roberta", "electra")
}


def family_of(config: Mapping[str, Any]) -> BackboneFamily:
    """Return the family of a Hugging Face `config.json`.

    Raises:
        ValueError: If it is none of those known.
    """
    model_type = config.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise ValueError(f"model_type is {model_type!r}, known are {', '.join(FAMILIES)}")
    return family
