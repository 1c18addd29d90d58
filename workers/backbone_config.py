"""What a backbone's `config.json` says, and whether the engine runs such a model.

Stricter than `tasks.backbone_shape.read_shape`, which needs only dimensions: a setting that changes
what the model computes is either understood or refused. No torch here: the command line and the
store check folders too.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.backbone_families import family_of
from tasks.backbone_shape import BackboneShape, shape_from_config
from tasks.site_ops import Activation
from workers.errors import BackboneCorruptError, BackboneMissingError, BackboneUnsupportedError

CONFIG_FILE = "config.json"
NUM_RELATIVE_BUCKETS = 32
"""MPNet's. Transformers sorts distances into so many whatever the config says."""

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_DISTILBERT_NORM_EPS = 1e-12


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """What the engine must know of a backbone before it reads the weights."""

    family: str
    """`model_type`, a key of `FAMILIES`."""
    shape: BackboneShape
    activation: Activation
    """Between the two feed-forward products."""
    layer_norm_eps: float
    embedding_size: int
    """Width of the embedding tables; where it is not the hidden size, a projection follows."""
    num_token_types: int
    """Rows of the table of token types; 0: there is no table."""
    pairs_have_types: bool
    """The second text of a pair has token type 1; else all tokens have type 0."""
    first_position: int
    """Row of the position table that the first token of a row reads."""
    has_relative_attention: bool
    """Attention scores get a bias by head and distance (MPNet)."""


class _Settings(BaseModel):
    """The part of a `config.json` that the engine depends on, beside the dimensions."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    is_decoder: Literal[False] = False


_Activation = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish"]
_NormEps = Annotated[float, Field(gt=0, lt=0.1)]


class _Bert(_Settings):
    hidden_act: _Activation
    layer_norm_eps: _NormEps
    position_embedding_type: Literal["absolute"] = "absolute"
    type_vocab_size: int = Field(ge=1, le=64)


class _Electra(_Bert):
    embedding_size: int = Field(ge=1, le=1 << 20)


class _DistilBert(_Settings):
    activation: _Activation
    sinusoidal_pos_embds: Literal[False] = False


class _MPNet(_Settings):
    hidden_act: _Activation
    layer_norm_eps: _NormEps
    # Transformers takes these two as given, whatever the config says.
    pad_token_id: Literal[1] = 1
    relative_attention_num_buckets: Literal[32] = 32


_SETTINGS: dict[str, type[_Bert | _DistilBert | _MPNet]] = {
    "bert": _Bert,
    "distilbert": _DistilBert,
    "electra": _Electra,
    "mpnet": _MPNet,
    "roberta": _Bert,
}


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
    if not isinstance(config, dict):
        raise BackboneUnsupportedError(f"{path} is not a JSON object")
    if "auto_map" in config or config.get("trust_remote_code"):
        raise BackboneUnsupportedError(
            f"{path} asks for code of its own to be run (auto_map); only models that need none "
            "are loaded"
        )
    try:
        return _described(config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BackboneUnsupportedError(f"{path}: {where}: {first['msg']}") from error
    except ValueError as error:
        raise BackboneUnsupportedError(f"{path}: {error}") from error


def _described(config: dict[str, Any]) -> BackboneConfig:
    family = family_of(config)
    settings = _SETTINGS[family.model_type].model_validate(config)
    shape = shape_from_config(config)
    num_token_types = 0
    if isinstance(settings, _Bert):
        num_token_types = settings.type_vocab_size
    if isinstance(settings, _DistilBert):
        activation, layer_norm_eps = settings.activation, _DISTILBERT_NORM_EPS
    else:
        activation, layer_norm_eps = settings.hidden_act, settings.layer_norm_eps
    return BackboneConfig(
        family=family.model_type,
        shape=shape,
        activation=_ACTIVATIONS[activation],
        layer_norm_eps=layer_norm_eps,
        embedding_size=shape.embedding_size,
        num_token_types=num_token_types,
        pairs_have_types=family.pairs_have_types and num_token_types > 1,
        first_position=family.first_position(config),
        has_relative_attention=isinstance(settings, _MPNet),
    )
