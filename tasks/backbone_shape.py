"""What a task knows of a backbone: dimensions, digest, the sites where PETs act."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.backbone_families import Dimension, family_of
from tasks.errors import BackboneUnknown
from tasks.sites import LINEAR_SITES, NORM_SITES, LinearSite, NormSite, Site

__all__ = [
    "LINEAR_SITES",
    "NORM_SITES",
    "BackboneShape",
    "LinearSite",
    "NormSite",
    "Site",
    "backbone_digest",
    "read_shape",
    "shape_from_config",
]

_MAX_DIMENSION = 1 << 20
_MAX_CONFIG_BYTES = 1 << 20
# Flat positions in a weight matrix are int32.
_MAX_MATRIX_ITEMS = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class BackboneShape:
    """Dimensions of the shared model; every matrix of a layer can be indexed with int32."""

    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    """Longest row in tokens, the special ones included."""
    embedding_size: int = 0
    """Width of the embedding tables and of the LayerNorm behind them; where it is not hidden_size,
    a projection follows. 0, the default, becomes hidden_size."""

    def __post_init__(self) -> None:
        if self.embedding_size == 0:
            object.__setattr__(self, "embedding_size", self.hidden_size)
        for field in self.__slots__:
            value = getattr(self, field)
            if type(value) is not int or not 1 <= value <= _MAX_DIMENSION:
                raise ValueError(f"expected {field} in 1..{_MAX_DIMENSION}, got {value!r}")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"expected hidden_size to be a multiple of num_heads, "
                f"got {self.hidden_size} and {self.num_heads}"
            )
        if self.hidden_size * max(self.hidden_size, self.intermediate_size) > _MAX_MATRIX_ITEMS:
            raise ValueError(
                f"expected matrices of at most {_MAX_MATRIX_ITEMS} weights, got hidden_size "
                f"{self.hidden_size} and intermediate_size {self.intermediate_size}"
            )

    def linear_shape(self, site: LinearSite) -> tuple[int, int]:
        """Return (out, in) of a linear site's weight."""
        if site == "ffn_input":
            return self.intermediate_size, self.hidden_size
        if site == "ffn_output":
            return self.hidden_size, self.intermediate_size
        return self.hidden_size, self.hidden_size

    def norm_size(self, site: Site) -> int:
        """Return the length of gamma and beta of a LayerNorm; `embeddings` stands for theirs."""
        return self.embedding_size if site == "embeddings" else self.hidden_size


def read_shape(backbone_folder: Path) -> BackboneShape:
    """Read the shape from the `config.json` of a Hugging Face folder.

    Raises:
        BackboneUnknown: If there is no such file, or it describes no backbone of a known family.
    """
    path = backbone_folder / "config.json"
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_CONFIG_BYTES + 1)
        if len(raw) > _MAX_CONFIG_BYTES:
            raise ValueError("larger than 1 MiB")
        config = json.loads(raw)
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
        return shape_from_config(config)
    except FileNotFoundError:
        raise BackboneUnknown(
            f"no backbone at {backbone_folder}: fetch it with `petstream models fetch "
            f"{backbone_folder.name}`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BackboneUnknown(
            f"{path} describes no backbone that tasks can stand on ({error}): fetch it again with "
            f"`petstream models fetch {backbone_folder.name}`"
        ) from error


def shape_from_config(config: Mapping[str, Any]) -> BackboneShape:
    """Return the shape that a Hugging Face `config.json` states.

    Raises:
        ValueError: If the family is not known, or a dimension is not there or cannot be.
    """
    family = family_of(config)
    missing = [key for key in family.config_keys.values() if key not in config]
    if missing:
        raise ValueError(f"no {', '.join(missing)}")
    found: dict[Dimension, Any] = {
        dimension: config[key] for dimension, key in family.config_keys.items()
    }
    if not found.get("embedding_size", True):
        raise ValueError(
            f"expected embedding_size in 1..{_MAX_DIMENSION}, got {found['embedding_size']!r}"
        )
    position_rows = found.pop("position_rows")
    if type(position_rows) is not int:
        raise ValueError(f"expected a number of positions, got {position_rows!r}")
    return BackboneShape(**found, max_positions=position_rows - family.first_position(config))


def backbone_digest(backbone_folder: Path) -> str:
    """Return `sha256:<hex>` of a Hugging Face folder's weights, by which tasks know a backbone."""
    with (backbone_folder / "model.safetensors").open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
