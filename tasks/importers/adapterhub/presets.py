"""Configurations that the library knows by a string, of today and of its early versions.

The grammar is the library's: `name`, `name[key=value, ...]`, and several of them with `|` between.
"""

import ast
import re
from collections.abc import Mapping
from typing import Any

from tasks.errors import BadCheckpoint, KindUnsupported

_SEQUENTIAL = {
    "original_ln_before": True,
    "mh_adapter": False,
    "output_adapter": True,
    "non_linearity": "relu",
    "reduction_factor": 16.0,
}
_DOUBLE = {
    "mh_adapter": True,
    "output_adapter": True,
    "non_linearity": "swish",
    "reduction_factor": 16.0,
}
_PARALLEL = {
    "mh_adapter": False,
    "output_adapter": True,
    "non_linearity": "relu",
    "reduction_factor": 2.0,
    "is_parallel": True,
    "scaling": 4.0,
}
_COMPACTER = {"phm_layer": True, "reduction_factor": 32.0, "non_linearity": "gelu"}
_INVERTIBLE = {"inv_adapter": "nice"}
_LORA = {"architecture": "lora"}
_PREFIX = {"architecture": "prefix_tuning"}
_IA3 = {
    "intermediate_lora": True,
    "attn_matrices": ["k", "v"],
    "r": 1,
    "alpha": 1,
    "composition_mode": "scale",
}
_VERA = {"vera_d": 0.1, "vera_b": 0.0}
_REFT = {"architecture": "reft"}
_GATED = {"use_gating": True}


def _union(*configs: dict[str, Any]) -> dict[str, Any]:
    return {"architecture": "union", "configs": list(configs)}


_PRESETS: Mapping[str, dict[str, Any]] = {
    "seq_bn": _SEQUENTIAL,
    "double_seq_bn": _DOUBLE,
    "par_bn": _PARALLEL,
    "scaled_par_bn": {**_PARALLEL, "scaling": "learned"},
    "seq_bn_inv": {**_SEQUENTIAL, **_INVERTIBLE},
    "double_seq_bn_inv": {**_DOUBLE, **_INVERTIBLE},
    "compacter": {**_DOUBLE, **_COMPACTER},
    "compacter++": {**_SEQUENTIAL, **_COMPACTER},
    "prefix_tuning": _PREFIX,
    "prefix_tuning_flat": {**_PREFIX, "flat": True},
    "prompt_tuning": {"architecture": "prompt_tuning"},
    "lora": _LORA,
    "ia3": {**_LORA, **_IA3},
    "vera": {**_LORA, **_VERA},
    "dora": {**_LORA, "use_dora": True},
    "dvora": {**_LORA, **_VERA, "use_dora": True},
    "mtl_lora": {"architecture": "mtl_lora"},
    "loreft": _REFT,
    "noreft": _REFT,
    "direft": _REFT,
    "mam": _union({**_PREFIX, "bottleneck_size": 800}, _PARALLEL),
    "unipelt": _union(
        {**_PREFIX, **_GATED, "prefix_length": 10},
        {**_SEQUENTIAL, **_GATED},
        {**_LORA, **_GATED, "alpha": 2},
    ),
}
_OLD_NAMES = {
    "pfeiffer": "seq_bn",
    "houlsby": "double_seq_bn",
    "parallel": "par_bn",
    "scaled_parallel": "scaled_par_bn",
    "pfeiffer+inv": "seq_bn_inv",
    "houlsby+inv": "double_seq_bn_inv",
}
_ONE = re.compile(r"(?P<name>[^\[\]|\n]{1,100})(?:\[(?P<options>.{0,2000})\])?\Z")


def preset(text: str) -> dict[str, Any]:
    """Return the configuration that a string stands for.

    Raises:
        KindUnsupported: If the library's versions that are known here have no such name.
        BadCheckpoint: If its options cannot be read.
    """
    configs = [_one(part.strip()) for part in text.split("|")]
    return configs[0] if len(configs) == 1 else _union(*configs)


def _one(text: str) -> dict[str, Any]:
    match = _ONE.match(text)
    name = match["name"] if match else text
    known = _PRESETS.get(_OLD_NAMES.get(name, name))
    if match is None or known is None:
        raise KindUnsupported(
            f"configuration {text[:100]!r} is none that is known here: put the whole configuration "
            f"into adapter_config.json, as newer versions of the library do"
        )
    return {**known, **_options(match["options"] or "")}


def _options(text: str) -> dict[str, Any]:
    try:
        found = ast.literal_eval("{" + re.sub(r"(\w+)=", r"'\1':", text) + "}")
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise BadCheckpoint(f"options {text[:100]!r} of a configuration cannot be read") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise BadCheckpoint(f"options {text[:100]!r} of a configuration are not keys and values")
    return found
