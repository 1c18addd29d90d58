"""`adapter_config.json`: what the library's configuration says, in one form for all its versions.

Fields are the library's, with its defaults. Those that matter in training only are not read.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.errors import BadCheckpoint, KindUnsupported
from tasks.importers.adapterhub.presets import preset
from tasks.importers.imported import Finding
from tasks.importers.validation import validated

Count = Annotated[int, Field(ge=1, le=4096)]
Layers = list[Annotated[int, Field(ge=0, le=4096)]]
Factor = Annotated[float, Field(gt=0, le=65536)]
Name = Annotated[str, Field(min_length=1, max_length=200)]

_TRAINING_ONLY = frozenset(
    {
        "architecture", "attention_type", "cross_adapter", "cross_prefix", "dropout", "dtype",
        "encoder_prefix", "hypercomplex_nonlinearity", "init_weights", "init_weights_seed",
        "inv_adapter_reduction_factor", "invertible_adapter", "learn_phm", "new_attention_norm",
        "phm_c_init", "phm_init_range", "prompt_init", "prompt_init_text", "random_uniform_scale",
        "stochastic_depth",
    }
)  # fmt: skip
# Version 1 of the library -> later ones.
_OLD_KEYS = {
    "LN_after": "ln_after",
    "LN_before": "ln_before",
    "MH_Adapter": "mh_adapter",
    "Output_Adapter": "output_adapter",
}
# Of configurations without a version: the library renames them, too.
_OLD_ACTIVATIONS = {"gelu": "gelu_new", "gelu_orig": "gelu"}
_WITHOUT_COUNTERPART = {
    "reft": "ReFT edits hidden states of chosen positions behind a layer, which no PET kind does",
    "mtl_lora": "MTL-LoRA shares factors among tasks and mixes several up projections",
}
_VERSION = re.compile(r"adapters\.(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?(.*)\Z")
_FIRST_WITH_RIGHT_SCALE = (1, 1, 0)


class _Method(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)

    leave_out: Layers = []


class BottleneckConfig(_Method):
    """A bottleneck adapter, Compacter included."""

    mh_adapter: bool
    output_adapter: bool
    reduction_factor: Factor | dict[str, Factor]
    non_linearity: Name
    original_ln_before: bool = False
    original_ln_after: bool = True
    ln_before: bool = False
    ln_after: bool = False
    is_parallel: bool = False
    scaling: Annotated[float, Field(ge=-65536, le=65536)] | Literal["learned", "channel"] = 1.0
    use_gating: bool = False
    residual_before_ln: bool | Literal["post_add"] = True
    adapter_residual_before_ln: bool = False
    inv_adapter: str | None = None
    phm_layer: bool = False
    phm_dim: Annotated[int, Field(ge=1, le=64)] = 4
    phm_rank: Annotated[int, Field(ge=1, le=256)] | None = 1
    phm_bias: bool | None = True
    factorized_phm_W: bool | None = True
    shared_W_phm: bool | None = False
    shared_phm_rule: bool | None = True
    factorized_phm_rule: bool | None = False


class LowRankConfig(_Method):
    """LoRA, DoRA, VeRA and IA3."""

    selfattn_lora: bool = True
    intermediate_lora: bool = False
    output_lora: bool = False
    r: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Annotated[float, Field(gt=0, le=65536)] = 8
    attn_matrices: list[Name] = ["q", "v"]
    composition_mode: Literal["add", "scale"] = "add"
    use_gating: bool = False
    use_dora: bool = False
    vera_d: float | None = None
    vera_b: float | None = None


class PrefixConfig(_Method):
    """Prefix tuning, flat or through an MLP."""

    flat: bool = False
    prefix_length: Annotated[int, Field(ge=1, le=1024)] = 30
    bottleneck_size: Count = 512
    non_linearity: Name = "tanh"
    use_gating: bool = False
    shared_gating: bool = True


class PromptConfig(_Method):
    """Prompt tuning."""

    prompt_length: Annotated[int, Field(ge=1, le=1024)] = 10
    combine: Literal["prefix", "prefix_after_bos"] = "prefix"


MethodConfig = BottleneckConfig | LowRankConfig | PrefixConfig | PromptConfig

_METHODS: Mapping[str | None, type[MethodConfig]] = {
    None: BottleneckConfig,
    "bottleneck": BottleneckConfig,
    "lora": LowRankConfig,
    "prefix_tuning": PrefixConfig,
    "prompt_tuning": PromptConfig,
}


class AdapterDocument(BaseModel):
    """`adapter_config.json` around the method's configuration."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    name: Name
    """Part of all of its tensors' names."""
    model_type: Name
    config: str | dict[str, Any]
    hidden_size: int | None = None
    model_name: str | None = None
    version: str | None = None
    type: str | None = None
    """Of early versions: `text_task` or `text_lang`."""


def read_document(document: object) -> AdapterDocument:
    """Validate `adapter_config.json`.

    Raises:
        BadCheckpoint: If it is not of the library's form.
    """
    return validated(AdapterDocument, document, "adapter_config.json")


def read_methods(document: AdapterDocument) -> tuple[list[MethodConfig], list[Finding]]:
    """Return the methods that the adapter consists of, and what is to be told about them.

    Raises:
        BadCheckpoint: If the configuration is not of the library's form.
        KindUnsupported: If it names a method that has no counterpart.
    """
    config = preset(document.config) if isinstance(document.config, str) else document.config
    findings: list[Finding] = []
    if config.get("architecture") != "union":
        return [_method(config, document, findings, is_whole=True)], findings
    configs = config.get("configs")
    if not isinstance(configs, list) or not all(isinstance(one, dict) for one in configs):
        raise BadCheckpoint("adapter_config.json: a union's configs are no list of objects")
    return [_method(one, document, findings, is_whole=False) for one in configs], findings


def _method(
    config: Mapping[str, Any], document: AdapterDocument, findings: list[Finding], is_whole: bool
) -> MethodConfig:
    architecture = config.get("architecture")
    if not isinstance(architecture, str | None) or architecture not in _METHODS:
        reason = "it is none of the library's methods that are known here"
        if isinstance(architecture, str):
            reason = _WITHOUT_COUNTERPART.get(architecture, reason)
        raise KindUnsupported(f"architecture {str(architecture)[:50]!r} is not imported: {reason}")
    renamed = {_OLD_KEYS.get(key, key): value for key, value in config.items()}
    activation = renamed.get("non_linearity")
    if document.version is None and isinstance(activation, str):
        renamed["non_linearity"] = _OLD_ACTIVATIONS.get(activation, activation)
    method = validated(_METHODS[architecture], _with_invertible(renamed), "config")
    unknown = sorted((method.model_extra or {}).keys() - _TRAINING_ONLY)
    if unknown:
        message = f"{', '.join(key[:50] for key in unknown[:5])}: not known, not heeded"
        findings.append(Finding("warning", "unknown_config_key", message))
    if isinstance(method, LowRankConfig) and _has_wrong_scale(document.version):
        return _rescaled(method, findings, is_whole)
    return method


def _with_invertible(config: dict[str, Any]) -> dict[str, Any]:
    """Early versions had a nested object; a value of it is what `inv_adapter` says today."""
    nested = config.get("invertible_adapter")
    if isinstance(nested, dict) and nested:
        return {**config, "inv_adapter": str(nested.get("block_type"))}
    return config


def _has_wrong_scale(version: str | None) -> bool:
    match = _VERSION.match(version or "")
    if match is None:
        return False
    number = (int(match[1]), int(match[2]), int(match[3] or 0))
    is_before_release = re.match(r"[.-]?(a|b|c|rc|dev|alpha|beta|pre)", match[4]) is not None
    return number < _FIRST_WITH_RIGHT_SCALE or (
        number == _FIRST_WITH_RIGHT_SCALE and is_before_release
    )


def _rescaled(method: LowRankConfig, findings: list[Finding], is_whole: bool) -> LowRankConfig:
    """Versions below 1.1.0 trained with a scale of 1, whatever alpha says, as later ones know."""
    if method.alpha == method.r:
        return method
    if not is_whole:
        message = (
            f"alpha {method.alpha:g} of a LoRA within a union of a version below 1.1.0 is taken as "
            f"it stands, as the library takes it, though it was trained with {method.r}"
        )
        findings.append(Finding("warning", "unsure_alpha", message))
        return method
    message = (
        f"alpha is taken to be {method.r}, not {method.alpha:g}: versions below 1.1.0 trained so"
    )
    findings.append(Finding("note", "alpha_is_rank", message))
    return method.model_copy(update={"alpha": float(method.r)})
