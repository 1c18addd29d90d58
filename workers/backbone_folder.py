"""A backbone's folder: its files, and what its `config.json` says, checked before weights are read.

Stricter than `tasks.backbone_shape.read_shape`, which needs only dimensions: this decides whether
the engine can run the model. No torch here: the command line and the store check folders too.
"""

import json
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.backbone_shape import (
    LINEAR_SITES,
    NORM_SITES,
    SITE_MODULES,
    BackboneShape,
    shape_from_config,
)
from workers.errors import BackboneCorruptError, BackboneMissingError, BackboneUnsupportedError
from workers.safetensors_file import TensorInfo, read_header

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
FOLDER_FILES = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE)
"""A backbone's folder: what a Hugging Face folder of the same model has, and no more."""


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """What the engine must know of a backbone before it reads the weights."""

    shape: BackboneShape
    num_token_types: int
    layer_norm_eps: float


class _BertConfig(BaseModel):
    """The part of a BERT `config.json` that the engine depends on, beside the dimensions."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model_type: Literal["bert"]
    hidden_act: Literal["gelu"]
    position_embedding_type: Literal["absolute"] = "absolute"
    is_decoder: Literal[False] = False
    type_vocab_size: int = Field(ge=1, le=64)
    layer_norm_eps: float = Field(gt=0, lt=0.1)


def read_config(folder: Path) -> BackboneConfig:
    """Read and check the `config.json` of a backbone's folder.

    Raises:
        BackboneMissingError: If there is none.
        BackboneCorruptError: If it is not JSON.
        BackboneUnsupportedError: If the model is not one the engine runs, or asks for code of
            its own to be run.
    """
    path = folder / CONFIG_FILE
    try:
        config: Any = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BackboneMissingError(f"{folder} has no {CONFIG_FILE}") from error
    except ValueError as error:
        raise BackboneCorruptError(f"{path} is not JSON: {error}") from error
    if isinstance(config, dict) and ("auto_map" in config or config.get("trust_remote_code")):
        raise BackboneUnsupportedError(
            f"{path} asks for code of its own to be run (auto_map); only models that need none "
            "are loaded"
        )
    try:
        checked = _BertConfig.model_validate(config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise BackboneUnsupportedError(f"{path}: {where}: {first['msg']}") from error
    try:
        shape = shape_from_config(config)
    except ValueError as error:
        raise BackboneUnsupportedError(f"{path}: {error}") from error
    return BackboneConfig(shape, checked.type_vocab_size, checked.layer_norm_eps)


def expected_tensors(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    """Return the name within BertModel and the shape of every tensor the engine reads."""
    shape = config.shape
    hidden = shape.hidden_size
    tensors: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (shape.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (shape.max_positions, hidden),
        "embeddings.token_type_embeddings.weight": (config.num_token_types, hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    for layer in range(shape.num_layers):
        prefix = f"encoder.layer.{layer}."
        for site in LINEAR_SITES:
            num_out, num_in = shape.linear_shape(site)
            tensors[f"{prefix}{SITE_MODULES[site]}.weight"] = (num_out, num_in)
            tensors[f"{prefix}{SITE_MODULES[site]}.bias"] = (num_out,)
        for norm_site in NORM_SITES:
            tensors[f"{prefix}{SITE_MODULES[norm_site]}.weight"] = (hidden,)
            tensors[f"{prefix}{SITE_MODULES[norm_site]}.bias"] = (hidden,)
    return tensors


def tensor_prefix(names: Container[str]) -> str:
    """Return what stands before the names of BertModel's tensors in a checkpoint's.

    A checkpoint of a model with a head has `bert.` there.
    """
    return "bert." if "bert.embeddings.word_embeddings.weight" in names else ""


def check_weights_header(folder: Path, config: BackboneConfig) -> None:
    """Check that the weights file has every tensor that `config` asks for.

    Raises:
        BackboneMissingError: If there is no weights file.
        BackboneCorruptError: If it is not safetensors, or a tensor is missing, of another shape
            or not float32 or a smaller float.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise BackboneMissingError(
            f"{folder} has no {WEIGHTS_FILE} (pickled weights, *.bin, are never loaded)"
        )
    header = read_header(path)
    prefix = tensor_prefix(header)
    for name, expected in expected_tensors(config).items():
        found: TensorInfo | None = header.get(prefix + name)
        if found is None or found.shape != expected or found.dtype not in ("F32", "F16", "BF16"):
            raise BackboneCorruptError(
                f"{path}: {prefix + name} should be a float tensor of shape {expected}, "
                f"found {'nothing' if found is None else f'{found.dtype} {found.shape}'}"
            )
