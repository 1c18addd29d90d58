"""`task.json`: what a task is, level by level, and which bytes its weights are.

The description pins each weight file by its SHA-256, and the digest of the description pins the
task: two artifacts with one digest are the same task.
"""

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from messages.limits import MAX_ARRAY_ITEMS, MAX_DIMENSIONS, MAX_LEVEL, MAX_TOKENS
from messages.task_event import TaskKind
from messages.truncation import Truncation
from tasks.errors import (
    ArtifactError,
    BadDescription,
    FileTooLarge,
    FormatForbidden,
    LevelNotFound,
    PathEscape,
    UnsupportedFormat,
)
from tasks.pets.kinds import AnyPet
from tasks.site_ops import Activation

FORMAT = 1
MAX_DESCRIPTION_BYTES = 4 << 20

Pooling = Literal["mean", "cls", "none"]
"""`mean` is over all tokens of the row, [CLS] and [SEP] included; `none` is for tagging."""

Name = Annotated[str, Field(pattern=r"\A[a-z0-9][a-z0-9._-]{0,63}\z")]
Digest = Annotated[str, Field(pattern=r"\Asha256:[0-9a-f]{64}\z")]
Probability = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(ge=0.01, le=100)]
"""Fits lie well within; beyond, a row's logits divided by it say nothing or overflow."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

# The pydantic error type of a rule -> the error that readers of an artifact catch.
_TYPED_ERRORS: dict[str, type[ArtifactError]] = {
    "path_escape": PathEscape,
    "format_forbidden": FormatForbidden,
    "unsupported_format": UnsupportedFormat,
}


class BackboneReference(BaseModel):
    """The shared weights that a level was trained on."""

    model_config = _STRICT

    name: Name
    digest: Digest
    """Of its `model.safetensors`."""


class HeadLayout(BaseModel):
    """A head that is not one linear layer: the layer before its last one, or no last one."""

    model_config = _STRICT

    hidden: Literal["own", "pooler"] | None = None
    """`own`: its weights are in the file; `pooler`: they are the backbone's. None: no layer."""
    features: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Outputs of an own layer. None: the hidden size."""
    activation: Activation | None = None
    """Of the hidden layer."""
    output: Literal["none"] | None = None
    """`none`, of embeddings only: what stands before the last layer is the answer."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "HeadLayout":
        if (self.hidden is None) != (self.activation is None):
            raise ValueError("a hidden layer and its activation go together")
        if self.hidden != "own" and self.features is not None:
            raise ValueError("features are those of a hidden layer of its own: leave them out")
        if self.hidden is None and self.output is None:
            raise ValueError("a head of one linear layer: leave `head` out")
        return self


class EmbeddingLayout(BaseModel):
    """What the vectors of an embedding task are."""

    model_config = _STRICT

    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)]
    normalise: bool
    """Whether each vector is given length 1 (by its Euclidean norm)."""


class LevelDescription(BaseModel):
    """One level of the task: backbone, PET, and the file with the PET's weights and the head."""

    model_config = _STRICT

    level: Annotated[int, Field(ge=0, le=MAX_LEVEL)]
    backbone: BackboneReference
    pet: AnyPet
    pooling: Pooling
    max_tokens: Annotated[int, Field(ge=3, le=MAX_TOKENS)]
    """[CLS] and [SEP] included."""
    truncation: Truncation | None = None
    """What becomes of longer rows. None: `head`."""
    head: HeadLayout | None = None
    """None: one layer."""
    file: str
    sha256: Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]

    @field_validator("file")
    @classmethod
    def _is_a_plain_safetensors_name(cls, file: str) -> str:
        if not _FILE_NAME.match(file) or ".." in file:
            raise PydanticCustomError(
                "path_escape", "not a plain file name: name a file of the folder itself"
            )
        if not file.endswith(".safetensors"):
            raise PydanticCustomError(
                "format_forbidden", "not safetensors: convert the weights, nothing else is read"
            )
        return file


class Cascade(BaseModel):
    """How sure the task must be to answer at a level; fitted by `petstream calibrate`."""

    model_config = _STRICT

    temperatures: tuple[Temperature, ...]
    """Per level; logits are divided by it."""
    threshold: Probability
    """Calibrated confidence from which a level answers at once."""
    ensemble_weights: tuple[Probability, ...]
    """Per level; they add up to 1."""
    accuracies: tuple[Probability, ...]
    """Per level, on the rows that the cascade was fitted on."""
    decision_threshold: Probability | None = None
    """Multi-label only: probability from which a label is given."""
    fitted_on_rows: Annotated[int, Field(ge=1)]
    target: Annotated[float, Field(gt=0, le=1)]
    """The accuracy that the threshold was fitted for."""


class TaskDescription(BaseModel):
    """A valid `task.json`; rules that span fields hold too."""

    model_config = _STRICT

    format: int
    name: Name
    revision: Annotated[int, Field(ge=1, le=999_999_999)]
    kind: TaskKind
    labels: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...],
        Field(max_length=MAX_ARRAY_ITEMS),
    ]
    """In the order of the head's rows. Regression: one, the name of the value. Embedding: none."""
    embedding: EmbeddingLayout | None = None
    """Of an embedding, and of no other kind."""
    takes_pair: bool
    source: Annotated[str, Field(max_length=2000)]
    """Where the training rows come from."""
    licence: Annotated[str, Field(max_length=2000)]
    levels: Annotated[tuple[LevelDescription, ...], Field(min_length=1, max_length=8)]
    """Ascending by level."""
    cascade: Cascade | None = None

    @field_validator("format")
    @classmethod
    def _is_read_by_this_release(cls, value: int) -> int:
        if value != FORMAT:
            raise PydanticCustomError(
                "unsupported_format",
                "this release reads format 1: use a newer release or write the task again",
            )
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> "TaskDescription":
        _check_labels(self.kind, self.labels)
        _check_levels(self.kind, self.levels)
        _check_embedding(self)
        _check_truncation(self.kind, self.levels, takes_pair=self.takes_pair)
        if self.cascade is not None:
            _check_cascade(self.cascade, self.kind, len(self.levels))
        return self

    @property
    def num_outputs(self) -> int:
        """How many numbers each level's head gives: labels, or dimensions."""
        return len(self.labels) if self.embedding is None else self.embedding.dimensions

    def level(self, level: int) -> LevelDescription:
        """Return the description of one level.

        Raises:
            LevelNotFound: If the task does not have it.
        """
        for found in self.levels:
            if found.level == level:
                return found
        raise LevelNotFound(
            f"{self.name} has levels {[found.level for found in self.levels]}, not {level}: "
            f"train it for that level's backbone"
        )

    def to_bytes(self) -> bytes:
        """Return the canonical bytes of `task.json`."""
        document = self.model_dump(mode="json", exclude_none=True)
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()

    def digest(self) -> str:
        """Return `sha256:<hex>` of the canonical bytes."""
        return digest_of(self.to_bytes())


def digest_of(raw: bytes) -> str:
    """Return `sha256:<hex>` of the bytes."""
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def parse_description(raw: bytes) -> TaskDescription:
    """Parse and validate the bytes of a `task.json`.

    Raises:
        FileTooLarge: If there are more than `MAX_DESCRIPTION_BYTES`.
        PathEscape: If a weight file's name is not a plain name.
        FormatForbidden: If a weight file is not safetensors.
        UnsupportedFormat: If `format` is not 1.
        BadDescription: If anything else is wrong with it.
    """
    if len(raw) > MAX_DESCRIPTION_BYTES:
        raise FileTooLarge(
            f"task.json is larger than {MAX_DESCRIPTION_BYTES} bytes: it holds no weights"
        )
    try:
        # pydantic lets the last of two equal keys win, so that two readers could disagree.
        json.loads(raw, object_pairs_hook=_without_duplicates)
        return TaskDescription.model_validate_json(raw)
    except ValidationError as error:
        raise _to_artifact_error(error) from error
    except (ValueError, RecursionError) as error:
        raise BadDescription(f"task.json is not valid JSON ({error}): write it again") from error


def _to_artifact_error(error: ValidationError) -> ArtifactError:
    # A format of a later release explains every other complaint.
    first = min(error.errors(), key=lambda found: found["type"] != "unsupported_format")
    where = ".".join(str(part) for part in first["loc"]) or "task"
    kind = _TYPED_ERRORS.get(first["type"], BadDescription)
    return kind(f"task.json, {where}: {first['msg']}")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        raise ValueError("an object has a key twice")
    return keys


def _check_labels(kind: TaskKind, labels: tuple[str, ...]) -> None:
    if len(set(labels)) < len(labels):
        raise ValueError("a label is named twice")
    if any(not label.isprintable() for label in labels):
        raise ValueError("a label has characters that cannot be printed")
    if kind == "embedding":
        if labels:
            raise ValueError("an embedding has dimensions and no labels")
    elif not labels:
        raise ValueError(f"{kind} needs labels, at least one")
    if kind == "regression" and len(labels) != 1:
        raise ValueError(f"regression has one label, the value's name, not {len(labels)}")
    if kind in ("single_label", "tagging") and len(labels) < 2:
        raise ValueError(f"{kind} has at least two labels")


def _check_levels(kind: TaskKind, levels: tuple[LevelDescription, ...]) -> None:
    numbers = [level.level for level in levels]
    if numbers != sorted(set(numbers)):
        raise ValueError(f"levels must ascend, each once, got {numbers}")
    if len({level.file for level in levels}) < len(levels):
        raise ValueError("two levels name one file")
    if any((level.pooling == "none") != (kind == "tagging") for level in levels):
        raise ValueError("pooling is none for tagging, and mean or cls for every other kind")


def _check_embedding(task: TaskDescription) -> None:
    layout = task.embedding
    if (layout is not None) != (task.kind == "embedding"):
        raise ValueError("`embedding` belongs to kind embedding, which must have it")
    heads = [level.head for level in task.levels if level.head is not None]
    if layout is None:
        if any(head.output is not None for head in heads):
            raise ValueError(f"a head without a last layer gives embeddings, not {task.kind}")
        return
    if len(task.levels) > 1:
        raise ValueError(
            "an embedding has one level: vectors of two backbones lie in different spaces, and "
            "none may depend on how sure a smaller level was"
        )
    if task.cascade is not None:
        raise ValueError("an embedding has one level and so no cascade")
    for head in heads:
        if head.output is not None and head.features not in (None, layout.dimensions):
            raise ValueError(
                f"embedding.dimensions is {layout.dimensions}, the head gives {head.features}"
            )


def _check_truncation(
    kind: TaskKind, levels: tuple[LevelDescription, ...], *, takes_pair: bool
) -> None:
    if any(level.truncation == "head_and_tail" for level in levels):
        if takes_pair:
            raise ValueError("head_and_tail is for one text: a pair is cut at its longer one's end")
        if kind == "tagging":
            raise ValueError("head_and_tail would leave words in the middle without a tag")


def _check_cascade(cascade: Cascade, kind: TaskKind, num_levels: int) -> None:
    for field in ("temperatures", "ensemble_weights", "accuracies"):
        found = len(getattr(cascade, field))
        if found != num_levels:
            raise ValueError(f"cascade.{field} has {found} entries for {num_levels} levels")
    if abs(sum(cascade.ensemble_weights) - 1) > 1e-6:
        raise ValueError("cascade.ensemble_weights do not add up to 1")
    if cascade.decision_threshold is not None and kind != "multi_label":
        raise ValueError(f"cascade.decision_threshold is for multi_label, not {kind}")
