"""A folder of sentence-transformers: what stands between its encoder and its vectors.

    modules.json              Transformer, Pooling, then Dense and Normalize where there are any
    <Transformer>             a checkpoint of transformers or PEFT; in most folders their top itself
    <Pooling>/config.json     how tokens become one vector
    <Dense>/                  one linear layer and what follows it

Written by versions 2 to 6 of the library. Each module is computed exactly or refused; none of the
library's code is run.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from messages.limits import MAX_DIMENSIONS
from tasks.errors import KindUnsupported
from tasks.importers.checkpoint import read_weights
from tasks.importers.imported import Finding
from tasks.importers.json_object import MAX_JSON_BYTES, parse_array, parse_object
from tasks.importers.ledger import Ledger
from tasks.importers.validation import validated
from tasks.safe_folder import SafeFolder

MODULES = "modules.json"
_DENSE_FILES = ("model.safetensors", "pytorch_model.bin")
_CHAIN = ("Transformer", "Pooling", "Dense", "Normalize")
_SENTENCE = "sentence_embedding"
_LENGTH_FILE = re.compile(r"sentence_[a-z-]+_config\.json")
_ACTIVATIONS: Mapping[str, Literal["tanh"] | None] = {"Identity": None, "Tanh": "tanh"}
_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
"""Of versions below 5.7, which have a field for each way."""


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A layer behind the pooling: activation(v weight^T + bias)."""

    weight: NDArray[np.float32]
    """Shape (dimensions, hidden)."""
    bias: NDArray[np.float32]
    """Shape (dimensions,)."""
    activation: Literal["tanh"] | None


@dataclass(frozen=True, slots=True, eq=False)
class SentenceModules:
    """The modules of a folder, all of which an embedding task can have."""

    transformer: tuple[str, ...]
    """Names of the folders that lead to its checkpoint."""
    pooling: Literal["mean", "cls"]
    dense: Dense | None
    normalise: bool
    max_tokens: int | None
    """Where the library cuts a text; None: it does not say."""
    version: str | None
    used_keys: frozenset[str]
    findings: tuple[Finding, ...]


class _Form(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class _Module(_Form):
    idx: int
    path: str
    type: str

    @property
    def kind(self) -> str:
        return self.type.rpartition(".")[2]

    @property
    def folder(self) -> tuple[str, ...]:
        return tuple(self.path.split("/")) if self.path else ()


class _Pooling(_Form):
    pooling_mode: str | list[str] | None = None


class _Dense(_Form):
    in_features: Annotated[int, Field(ge=1, le=65536)]
    out_features: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)]
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    module_input_name: str = _SENTENCE
    module_output_name: str | None = None
    use_residual: bool = False


class _Normalize(_Form):
    module_input_name: str = _SENTENCE
    module_output_name: str | None = None


class _Encoder(_Form):
    max_seq_length: Annotated[int, Field(ge=1)] | None = None
    do_lower_case: bool | None = None
    transformer_task: str = "feature-extraction"


class _Prompts(_Form):
    prompts: dict[str, str] | None = None
    default_prompt_name: str | None = None


def read_modules(path: Path) -> SentenceModules | None:
    """Read what stands behind the encoder; None if the folder is not one of the library.

    Raises:
        KindUnsupported: If a module computes what an embedding task does not.
        BadCheckpoint, KeyMissing: If a file is not as the library writes it.
        ArtifactError: If a file is not there, or leads out of the folder.
    """
    if not (path / MODULES).is_file():
        return None
    with SafeFolder(path) as folder:
        listed = parse_array(folder.read(MODULES, MAX_JSON_BYTES), MODULES)
        settings = _object(folder, "config_sentence_transformers.json")
    modules = sorted(
        (validated(_Module, module, MODULES) for module in listed), key=lambda module: module.idx
    )
    _check_chain(modules)
    by_kind = {module.kind: module for module in modules}
    transformer = by_kind["Transformer"].folder
    max_tokens, findings = _encoder(path, transformer)
    pooling = _pooling(path, by_kind["Pooling"].folder)
    dense, used_keys = None, frozenset[str]()
    if "Dense" in by_kind:
        dense, used_keys, told = _dense(path, by_kind["Dense"].folder)
        findings += told
    if "Normalize" in by_kind:
        _check_normalize(path, by_kind["Normalize"].folder)
    versions = settings.get("__version__")
    version = versions.get("sentence_transformers") if isinstance(versions, dict) else None
    return SentenceModules(
        transformer=transformer,
        pooling=pooling,
        dense=dense,
        normalise="Normalize" in by_kind,
        max_tokens=max_tokens,
        version=version if isinstance(version, str) else None,
        used_keys=used_keys,
        findings=(*findings, *_prompt_findings(settings)),
    )


def _check_chain(modules: list[_Module]) -> None:
    for module in modules:
        if not module.type.startswith("sentence_transformers."):
            raise KindUnsupported(
                f"{MODULES}: {module.type[:100]} is not one of the library's own: only models that "
                f"need no code of theirs are imported"
            )
        if module.kind not in _CHAIN:
            raise KindUnsupported(
                f"{MODULES}: {module.kind[:100]} is not computed here: an embedding is "
                f"{', '.join(_CHAIN)}"
            )
    found = [module.kind for module in modules]
    if found[:2] != ["Transformer", "Pooling"] or found != [k for k in _CHAIN if k in found]:
        raise KindUnsupported(
            f"{MODULES}: {', '.join(found)} stand in another order than {', '.join(_CHAIN)}, of "
            f"which the last two may be absent"
        )


def _encoder(path: Path, inner: tuple[str, ...]) -> tuple[int | None, list[Finding]]:
    with SafeFolder(path, inner) as folder:
        name = next((name for name in folder.names() if _LENGTH_FILE.fullmatch(name)), None)
        found = validated(_Encoder, {} if name is None else _object(folder, name), str(name))
        length = found.max_seq_length
        if length is None:  # later versions keep it with the tokenizer
            length = _object(folder, "tokenizer_config.json").get("model_max_length")
    if found.transformer_task != "feature-extraction":
        raise KindUnsupported(
            f"{name}: transformer_task {found.transformer_task[:50]!r} gives no tokens to pool"
        )
    findings = []
    if found.do_lower_case:
        message = (
            f"{name}: texts are made lower case before they are tokenised; here only the "
            f"backbone's own tokenizer decides: make them so yourself if it keeps capitals"
        )
        findings.append(Finding("warning", "lower_case", message))
    return length if type(length) is int else None, findings


def _pooling(path: Path, inner: tuple[str, ...]) -> Literal["mean", "cls"]:
    with SafeFolder(path, inner) as folder:
        config = parse_object(folder.read("config.json", MAX_JSON_BYTES), "/".join(inner))
    mode = validated(_Pooling, config, "/".join((*inner, "config.json"))).pooling_mode
    if mode is None:
        mode = [name for name, flag in _FLAGS.items() if config.get(flag)] or ["mean"]
    modes = [mode] if isinstance(mode, str) else mode
    if modes == ["mean"]:
        return "mean"
    if modes == ["cls"]:
        return "cls"
    raise KindUnsupported(
        f"{'/'.join(inner)}: pooling {' and '.join(modes)[:100]} is not computed here: only mean "
        f"and cls are"
    )


def _dense(path: Path, inner: tuple[str, ...]) -> tuple[Dense, frozenset[str], list[Finding]]:
    where = "/".join(inner)
    with SafeFolder(path, inner) as folder:
        config = validated(_Dense, _object(folder, "config.json"), f"{where}/config.json")
        tensors = read_weights(folder, _DENSE_FILES)
    _check_names(where, config.module_input_name, config.module_output_name)
    module, _, activation = config.activation_function.rpartition(".")
    if config.use_residual or activation not in _ACTIVATIONS or not module.startswith("torch.nn"):
        what = "a residual" if config.use_residual else config.activation_function[:100]
        raise KindUnsupported(
            f"{where}: Dense with {what} is not computed here: only Identity and Tanh are, without "
            f"a residual"
        )
    ledger = Ledger(tensors)
    weight = ledger.take("linear.weight", config.out_features, config.in_features)
    bias = np.zeros(config.out_features, np.float32)
    if config.bias:
        bias = ledger.take("linear.bias", config.out_features)
    ledger.check()
    keys = frozenset(f"{where}/{key}" for key in ledger.used_keys())
    return Dense(weight, bias, _ACTIVATIONS[activation]), keys, ledger.unused()


def _check_normalize(path: Path, inner: tuple[str, ...]) -> None:
    if not path.joinpath(*inner).is_dir():  # versions below 5.7 leave it empty, and git drops it
        return
    where = "/".join(inner)
    with SafeFolder(path, inner) as folder:
        config = validated(_Normalize, _object(folder, "config.json"), f"{where}/config.json")
    _check_names(where, config.module_input_name, config.module_output_name)


def _check_names(where: str, source: str, target: str | None) -> None:
    if {source, target or source} != {_SENTENCE}:
        raise KindUnsupported(
            f"{where}: from {source[:50]} to {str(target)[:50]} is not computed here: modules act "
            f"on the pooled vector"
        )


def _prompt_findings(settings: Mapping[str, Any]) -> list[Finding]:
    found = validated(_Prompts, settings, "config_sentence_transformers.json")
    used = {name: text for name, text in (found.prompts or {}).items() if text}
    if not used:
        return []
    shown = ", ".join(f"{name[:50]}: {text[:50]!r}" for name, text in list(used.items())[:5])
    default = found.default_prompt_name
    message = f"texts are meant to begin with a prompt, which the caller must write ({shown})"
    if default in used:
        message += f"; the library itself always writes that of {default!r}"
    return [Finding("warning", "prompts", message)]


def _object(folder: SafeFolder, name: str) -> dict[str, Any]:
    """Return a JSON object; an empty one if the folder has no such file."""
    if name not in folder.names():
        return {}
    return parse_object(folder.read(name, MAX_JSON_BYTES), name)
