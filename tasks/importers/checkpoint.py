"""A checkpoint's folder: its files, read within bounds, and whose they are.

Which library wrote a folder is told by its files alone:

    adapter_config.json with `peft_type`                   PEFT
    adapter_config.json with `config` and `model_type`     AdapterHub
    config.json with `delta_type` or `opendelta_version`   OpenDelta
    config.json with `model_type`, beside model weights    transformers, a full fine-tune
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import BadCheckpoint, KindUnsupported, OriginUnknown
from tasks.importers.imported import Finding, Origin
from tasks.importers.json_object import MAX_JSON_BYTES, parse_object
from tasks.importers.pickled_weights import MAX_PICKLE_BYTES, read_pickle
from tasks.importers.tensor_file import TensorFile
from tasks.safe_folder import SafeFolder

MAX_WEIGHT_BYTES = 4 << 30
PICKLE_SUFFIXES = (".bin", ".pt", ".pth")

_DOCUMENTS = (
    "adapter_config.json", "adapter_fusion_config.json", "adapter_interface.json",
    "adapter_setup.json", "config.json",
    "head_config.json",
)  # fmt: skip
_WEIGHTS: Mapping[Origin, tuple[tuple[str, ...], ...]] = {
    "peft": (("adapter_model.safetensors", "adapter_model.bin"),),
    "adapters": (
        ("adapter.safetensors", "pytorch_adapter.bin"),
        ("model_head.safetensors", "pytorch_model_head.bin"),
        ("adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin"),
    ),
    "opendelta": (("model.safetensors", "pytorch_model.bin"),),
    "transformers": (("model.safetensors", "pytorch_model.bin"),),
}
"""Of each group the first file that is there is read."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A checkpoint that has been read; nothing of it has been understood yet."""

    origin: Origin
    documents: Mapping[str, dict[str, Any]]
    """JSON files by their names."""
    tensors: Mapping[str, TensorFile]
    """Weight files by their names."""
    findings: tuple[Finding, ...]

    def weights(self) -> tuple[str, TensorFile]:
        """Return the name and tensors of the main weight file.

        Raises:
            BadCheckpoint: If there is none.
        """
        for group in _WEIGHTS[self.origin][:1]:
            for name in group:
                if name in self.tensors:
                    return name, self.tensors[name]
        raise BadCheckpoint(
            f"the checkpoint has none of {', '.join(_WEIGHTS[self.origin][0])}: copy its weights "
            f"beside its configuration"
        )


def read_checkpoint(path: Path, inner: tuple[str, ...] | None = None) -> Checkpoint:
    """Read the files of a checkpoint.

    Args:
        path: A folder.
        inner: Names of the folders that lead from there to it; None: they are looked for.

    Raises:
        OriginUnknown: If the files are not those of a library that is known.
        BadCheckpoint, PickleCarriesCode, PickleTooCostly: If a file of it cannot be read.
        ArtifactError: If the folder is not there, or a file leads out of it.
    """
    if path.is_file():
        raise OriginUnknown(f"{path} is a file: give the folder with its configuration")
    findings: list[Finding] = []
    if inner is None:
        inner, findings = _find_adapter(path)
    with SafeFolder(path, inner) as folder:
        names = folder.names()
        documents = {
            name: parse_object(folder.read(name, MAX_JSON_BYTES), name)
            for name in _DOCUMENTS
            if name in names
        }
        origin = _origin(path, names, documents)
        tensors = {}
        for group in _WEIGHTS[origin]:
            name = next((name for name in group if name in names), None)
            if name is not None:
                tensors[name], skipped = _read_file(folder, name)
                findings += [
                    Finding("note", "not_a_tensor", f"{name}: {entry} is no tensor: left out")
                    for entry in skipped
                ]
    return Checkpoint(origin, documents, tensors, tuple(findings))


def read_weight_file(path: Path) -> TensorFile:
    """Read one weight file, safetensors or pickle, by its suffix.

    Raises:
        BadCheckpoint: If it is neither, or cannot be read.
        PickleCarriesCode, PickleTooCostly: As `read_pickle`.
        ArtifactError: If it is not there.
    """
    if path.suffix not in (".safetensors", *PICKLE_SUFFIXES):
        raise BadCheckpoint(f"{path} is neither safetensors nor {', '.join(PICKLE_SUFFIXES)}")
    with SafeFolder(path.parent) as folder:
        tensors, _ = _read_file(folder, path.name)
    return tensors


def read_weights(folder: SafeFolder, names: tuple[str, ...]) -> TensorFile:
    """Read the first of the weight files that a folder has.

    Raises:
        BadCheckpoint: If it has none, or the file cannot be read.
        PickleCarriesCode, PickleTooCostly: As `read_pickle`.
    """
    name = next((name for name in names if name in folder.names()), None)
    if name is None:
        raise BadCheckpoint(f"a module has none of {', '.join(names)}: copy its weights, too")
    tensors, _ = _read_file(folder, name)
    return tensors


def _read_file(folder: SafeFolder, name: str) -> tuple[TensorFile, list[str]]:
    if name.endswith(PICKLE_SUFFIXES):
        return read_pickle(folder.read(name, MAX_PICKLE_BYTES), name)
    return TensorFile(folder.read(name, MAX_WEIGHT_BYTES), name), []


def _find_adapter(path: Path) -> tuple[tuple[str, ...], list[Finding]]:
    """Return the folder below `path` to read, and a note if it is not `path` itself.

    PEFT saves an adapter whose name is not `default` in a folder of that name.
    """
    with SafeFolder(path) as folder:
        names = folder.names()
    below = [
        name
        for name in names
        if (path / name).is_dir() and (path / name / "adapter_config.json").is_file()
    ]
    if "adapter_config.json" in names:
        if not below:
            return (), []
        others = ", ".join(below)
        message = f"{others} below it are adapters of their own: import each by its folder"
        return (), [Finding("note", "other_adapters", message)]
    if not below or "task.json" in names or "config.json" in names:
        return (), []
    if len(below) > 1:
        raise OriginUnknown(
            f"{path} has several adapters: give one of {', '.join(str(path / n) for n in below)}"
        )
    message = f"the adapter lies in the folder {below[0]}, as PEFT saves one by another name"
    return (below[0],), [Finding("note", "adapter_in_folder", message)]


def _origin(path: Path, names: list[str], documents: Mapping[str, dict[str, Any]]) -> Origin:
    if "task.json" in names:
        raise OriginUnknown(
            f"{path} is a task of PetStream already: use `petstream tasks add {path}`"
        )
    adapter, config = documents.get("adapter_config.json", {}), documents.get("config.json", {})
    if "peft_type" in adapter:
        return "peft"
    if {"config", "model_type"} <= adapter.keys() or "adapter_fusion_config.json" in documents:
        return "adapters"
    if "delta_type" in config or "opendelta_version" in config:
        return "opendelta"
    if "auto_map" in config or config.get("trust_remote_code"):
        raise KindUnsupported(
            f"{path / 'config.json'} asks for code of its own to be run (auto_map): only models "
            f"that need none are imported"
        )
    if "model_type" in config:
        if "model.safetensors.index.json" in names or "pytorch_model.bin.index.json" in names:
            raise BadCheckpoint(
                f"{path} has its weights in several files: save them as one (`save_pretrained` "
                f"with max_shard_size='10GB')"
            )
        return "transformers"
    found = ", ".join(names[:10]) or "nothing"
    raise OriginUnknown(
        f"{path} is not a checkpoint of PEFT, AdapterHub, OpenDelta or transformers (it has "
        f"{found}): give the folder with adapter_config.json or config.json"
    )
