"""A checkpoint becomes a level of a task: the one way in, whatever library wrote it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from messages.task_event import TaskKind
from messages.truncation import Truncation
from tasks.artifact import Artifact
from tasks.artifact_writer import TrainedLevel, write_artifact
from tasks.backbone_shape import BackboneShape
from tasks.description import EmbeddingLayout
from tasks.errors import HeadMissing, LabelsMismatch
from tasks.importers.adapterhub import parse_adapterhub
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.checkpoint import Checkpoint, read_checkpoint
from tasks.importers.embedding_head import EmbeddingPooling, embedding_head
from tasks.importers.full_finetune import parse_full_finetune
from tasks.importers.head_file import head_keys, read_head
from tasks.importers.imported import Finding, ImportedHead, ImportedPet, Origin
from tasks.importers.opendelta import parse_opendelta
from tasks.importers.peft.parse import parse_peft
from tasks.importers.sentence_modules import SentenceModules, read_modules
from tasks.importers.weight_changes import DeltaOptions
from tasks.pets.pet import StoredFloat

DEFAULT_MAX_TOKENS = 512
LIBRARIES: Mapping[Origin, str] = {
    "peft": "PEFT",
    "adapters": "AdapterHub",
    "opendelta": "OpenDelta",
    "transformers": "transformers",
    "sentence-transformers": "sentence-transformers",
}
_PROBLEMS: Mapping[str, TaskKind] = {
    "regression": "regression",
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
}


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What whoever imports says; None: what the checkpoint says, or the library's default."""

    level: int = 0
    labels: tuple[str, ...] | None = None
    kind: TaskKind | None = None
    head: Path | None = None
    """A weight file with the head, instead of one in the checkpoint."""
    pooling: EmbeddingPooling | None = None
    """What an embedding pools; else the head of `head` is one layer on this, without a pooler or
    another layer before it."""
    normalise: bool | None = None
    """Of an embedding: whether its vectors get length 1."""
    max_tokens: int | None = None
    truncation: Truncation | None = None
    delta: DeltaOptions = field(default_factory=DeltaOptions)
    """How the change of a full fine-tune is kept."""
    dtype: StoredFloat | None = None
    """None: float16 where that loses nothing, otherwise float32."""
    backbone_names: frozenset[str] = frozenset()
    """Names by which checkpoints may call the backbone, beside its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Import:
    """A checkpoint as a level of a task, in memory."""

    imported: ImportedPet
    level: TrainedLevel
    kind: TaskKind
    labels: tuple[str, ...]
    embedding: EmbeddingLayout | None
    dtype: StoredFloat
    findings: tuple[Finding, ...]

    def write(
        self,
        folder: Path,
        *,
        name: str,
        takes_pair: bool = False,
        source: str | None = None,
        licence: str | None = None,
        overwrite: bool = False,
    ) -> Artifact:
        """Write it as a task of one level.

        Raises:
            ArtifactError: One of its subclasses, if the task would not be valid.
            pydantic.ValidationError: If a field of the description is bad.
        """
        library = LIBRARIES[self.imported.origin]
        return write_artifact(
            folder,
            name=name,
            kind=self.kind,
            labels=self.labels,
            embedding=self.embedding,
            takes_pair=takes_pair,
            source=source or f"a checkpoint of {library}",
            licence=licence or "not stated",
            levels=(self.level,),
            dtype=self.dtype,
            overwrite=overwrite,
        )


def import_checkpoint(path: Path, backbone: BackboneTensors, options: ImportOptions) -> Import:
    """Read a checkpoint and turn it into a level.

    Raises:
        ImportRefused: One of its subclasses, by what cannot be taken over.
        ArtifactError: If the folder cannot be read, or the PET does not fit the backbone.
    """
    modules = _modules(path, options)
    checkpoint = read_checkpoint(path, None if modules is None else modules.transformer)
    config = checkpoint.documents.get("config.json", {})
    options = replace(options, kind=_kind(checkpoint, modules, options))
    imported = _PARSERS[checkpoint.origin](checkpoint, backbone, options)
    findings = [*imported.findings, *_base_findings(imported, backbone, options)]
    if modules is not None:
        imported, findings = _with_modules(imported, modules), [*findings, *modules.findings]
    head, embedding = _head_and_layout(imported, modules, backbone, options)
    if embedding is not None and imported.head is not None:
        message = "the checkpoint has a head, which an embedding does not pass through: left out"
        findings.append(Finding("warning", "head_unused", message))
    labels, named = _labels(head, config, options)
    if not named:
        message = "the checkpoint does not name its labels: give them with `--labels`"
        findings.append(Finding("warning", "labels_unnamed", message))
    max_tokens = options.max_tokens or _max_tokens(imported, modules, backbone.shape)
    level = TrainedLevel(
        level=options.level,
        backbone=backbone.reference,
        shape=backbone.shape,
        pet=imported.pet,
        pooling=head.pooling,
        max_tokens=max_tokens,
        truncation=options.truncation,
        head_weight=head.weight,
        head_bias=head.bias,
        tensors=imported.tensors,
        head=head.layout,
        hidden_weight=head.hidden_weight,
        hidden_bias=head.hidden_bias,
    )
    dtype = options.dtype or ("float16" if _is_exact_in_float16(level) else "float32")
    return Import(imported, level, head.kind, labels, embedding, dtype, tuple(findings))


def _modules(path: Path, options: ImportOptions) -> SentenceModules | None:
    """Return the modules behind the encoder, unless another head shall stand there."""
    if options.kind not in (None, "embedding") or options.head is not None:
        return None
    return read_modules(path)


def _kind(
    checkpoint: Checkpoint, modules: SentenceModules | None, options: ImportOptions
) -> TaskKind | None:
    """Return the kind of the task; None: told by its head."""
    if options.kind is not None or modules is not None:
        return options.kind or "embedding"
    adapter = checkpoint.documents.get("adapter_config.json", {})
    if adapter.get("task_type") == "FEATURE_EXTRACTION" and options.head is None:
        return "embedding"
    problem = checkpoint.documents.get("config.json", {}).get("problem_type")
    return _PROBLEMS.get(problem) if isinstance(problem, str) else None


def _max_tokens(
    imported: ImportedPet, modules: SentenceModules | None, shape: BackboneShape
) -> int:
    room = min(DEFAULT_MAX_TOKENS, shape.max_positions - imported.pet.reserved_positions())
    return min(room, modules.max_tokens or room) if modules is not None else room


def _with_modules(imported: ImportedPet, modules: SentenceModules) -> ImportedPet:
    return replace(
        imported,
        origin="sentence-transformers",
        library_version=modules.version,
        used_keys=imported.used_keys | modules.used_keys,
    )


def _parse_peft(
    checkpoint: Checkpoint, backbone: BackboneTensors, options: ImportOptions
) -> ImportedPet:
    is_embedding = options.kind == "embedding"
    has_own_head = not is_embedding and (options.head is None or options.pooling is None)
    head_file = None
    if options.head is not None and has_own_head:
        head_file = head_keys(options.head, backbone)
    return parse_peft(
        checkpoint, backbone, options.kind, head_file=head_file, reads_head=has_own_head
    )


def _parse_full(
    checkpoint: Checkpoint, backbone: BackboneTensors, options: ImportOptions
) -> ImportedPet:
    return parse_full_finetune(checkpoint, backbone, options.kind, options.delta)


_PARSERS: Mapping[Origin, Callable[[Checkpoint, BackboneTensors, ImportOptions], ImportedPet]] = {
    "peft": _parse_peft,
    "adapters": lambda checkpoint, backbone, _: parse_adapterhub(
        checkpoint, backbone.shape, backbone
    ),
    "opendelta": lambda checkpoint, backbone, _: parse_opendelta(
        checkpoint, backbone.shape, backbone
    ),
    "transformers": _parse_full,
}


def _head_and_layout(
    imported: ImportedPet,
    modules: SentenceModules | None,
    backbone: BackboneTensors,
    options: ImportOptions,
) -> tuple[ImportedHead, EmbeddingLayout | None]:
    if options.kind != "embedding":
        return _head(imported, backbone, options), None
    return embedding_head(
        modules,
        backbone,
        head=options.head,
        pooling=options.pooling,
        normalise=options.normalise,
    )


def _head(imported: ImportedPet, backbone: BackboneTensors, options: ImportOptions) -> ImportedHead:
    # PEFT may have trained beside a layer that lies in the file: that head is merged already.
    is_merged = imported.origin == "peft" and imported.head is not None
    if options.head is not None and not is_merged:
        return read_head(options.head, backbone, kind=options.kind, pooling=options.pooling)
    if imported.head is None:
        raise HeadMissing(
            "the checkpoint has no head: give a file with its weights (classifier.weight and "
            "classifier.bias, safetensors or .bin) with `--head`, or say that its vectors are the "
            "answer with `--kind embedding`"
        )
    return imported.head


def _labels(
    head: ImportedHead, config: Mapping[str, object], options: ImportOptions
) -> tuple[tuple[str, ...], bool]:
    """Return the labels, and whether anybody named them; an embedding has none to name."""
    if head.kind == "embedding":
        if options.labels is not None:
            raise LabelsMismatch("an embedding has no labels: leave `--labels` out")
        return (), True
    size = 0 if head.weight is None else len(head.weight)
    if options.labels is not None:
        if len(options.labels) != size:
            raise LabelsMismatch(
                f"{len(options.labels)} labels were given, the head has {size} rows: name each "
                f"row, in their order"
            )
        return options.labels, True
    named = head.labels or _labels_of_config(config, size)
    return named or tuple(f"LABEL_{number}" for number in range(size)), named is not None


def _labels_of_config(config: Mapping[str, object], size: int) -> tuple[str, ...] | None:
    found = config.get("id2label")
    if not isinstance(found, dict) or set(found) != {str(number) for number in range(size)}:
        return None
    labels = tuple(found[str(number)] for number in range(size))
    is_default = labels == tuple(f"LABEL_{number}" for number in range(size))
    return None if is_default or not all(isinstance(label, str) for label in labels) else labels


def _base_findings(
    imported: ImportedPet, backbone: BackboneTensors, options: ImportOptions
) -> list[Finding]:
    known = {name.rpartition("/")[2].lower() for name in options.backbone_names}
    known.add(backbone.reference.name.lower())
    base = imported.base_model
    if not base:
        if imported.origin == "transformers":  # whose weights were compared
            return []
        message = (
            f"the checkpoint does not name its backbone: taken for {backbone.reference.name}, "
            f"whose shape fits"
        )
        return [Finding("warning", "base_unknown", message)]
    if base.rstrip("/").rpartition("/")[2].lower() in known:
        return []
    message = (
        f"it was trained on {base[:200]!r} and is imported for {backbone.reference.name} "
        f"({backbone.reference.digest[:19]}): answers are right only if those are the same weights"
    )
    return [Finding("warning", "other_base", message)]


def _is_exact_in_float16(level: TrainedLevel) -> bool:
    head = (level.head_weight, level.head_bias, level.hidden_weight, level.hidden_bias)
    with np.errstate(over="ignore"):
        return all(
            np.array_equal(values, values.astype(np.float16).astype(np.float32))
            for values in (*level.tensors.values(), *head)
            if values is not None
        )
