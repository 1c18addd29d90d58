"""What a task knows of a BERT-shaped backbone: dimensions, digest, the sites where PETs act."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tasks.errors import BackboneUnknown

LinearSite = Literal["query", "key", "value", "attention_output", "ffn_input", "ffn_output"]
NormSite = Literal["attention_norm", "ffn_norm"]
Site = LinearSite | NormSite | Literal["attention", "embeddings"]
"""`attention` is where queries meet keys; `embeddings`, layer 0's only, is before all layers."""

LINEAR_SITES: tuple[LinearSite, ...] = get_args(LinearSite)
NORM_SITES: tuple[NormSite, ...] = get_args(NormSite)

SITE_MODULES: Mapping[LinearSite | NormSite, str] = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "ffn_input": "intermediate.dense",
    "ffn_output": "output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_norm": "output.LayerNorm",
}
"""Each site's module within a layer of BertModel."""

_MAX_DIMENSION = 1 << 20
_MAX_CONFIG_BYTES = 1 << 20
# Flat positions in a weight matrix are int32.
_MAX_MATRIX_ITEMS = (1 << 31) - 1

# field of BackboneShape -> key of a Hugging Face config.json
_CONFIG_KEYS = {
    "num_layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "vocab_size": "vocab_size",
    "max_positions": "max_position_embeddings",
}


@dataclass(frozen=True, slots=True)
class BackboneShape:
    """Dimensions of the shared model; every matrix of a layer can be indexed with int32."""

    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    """Longest row in tokens, [CLS] and [SEP] included."""

    def __post_init__(self) -> None:
        for field in _CONFIG_KEYS:
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


def read_shape(backbone_folder: Path) -> BackboneShape:
    """Read the shape from the `config.json` of a Hugging Face folder.

    Raises:
        BackboneUnknown: If there is no such file, or it does not describe a BERT-shaped model.
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
            f"{path} does not describe a BERT-shaped model ({error}): fetch it again with "
            f"`petstream models fetch {backbone_folder.name}`"
        ) from error


def shape_from_config(config: Mapping[str, Any]) -> BackboneShape:
    """Return the shape that a Hugging Face `config.json` states.

    Raises:
        ValueError: If a dimension is not there or cannot be.
    """
    missing = [key for key in _CONFIG_KEYS.values() if key not in config]
    if missing:
        raise ValueError(f"no {', '.join(missing)}")
    return BackboneShape(**{field: config[key] for field, key in _CONFIG_KEYS.items()})


def backbone_digest(backbone_folder: Path) -> str:
    """Return `sha256:<hex>` of a Hugging Face folder's weights, by which tasks know a backbone."""
    with (backbone_folder / "model.safetensors").open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
