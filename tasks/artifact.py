"""A task on disk: one folder with `task.json` and one safetensors file per level.

Everything is validated before anything is used, and each file is opened once: the bytes that are
hashed are the bytes that are parsed.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import BackboneShape
from tasks.description import (
    MAX_DESCRIPTION_BYTES,
    HeadLayout,
    LevelDescription,
    TaskDescription,
    digest_of,
    parse_description,
)
from tasks.errors import (
    BackboneMismatch,
    BackboneUnknown,
    ChecksumMismatch,
    DimensionsMismatch,
    TooManyTokens,
)
from tasks.pets.pet import Tensors, TensorSpec, to_float32
from tasks.safe_folder import SafeFolder
from tasks.site_ops import HiddenLayer, PetWeights
from tasks.weight_file import max_file_bytes, parse_tensors

DESCRIPTION_FILE = "task.json"
HEAD_WEIGHT = "head.weight"
HEAD_BIAS = "head.bias"
HIDDEN_WEIGHT = "head.hidden.weight"
HIDDEN_BIAS = "head.hidden.bias"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A folder whose description is valid. Its weights are validated by each `load_level`."""

    base: Path
    inner: tuple[str, ...]
    """Names below `base`, none of them a link."""
    description: TaskDescription
    digest: str
    """`sha256:<hex>` of the bytes of `task.json`."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.base.joinpath(*self.inner)

    def load_level(
        self, level: int, shape: BackboneShape, *, backbone_digest: str | None = None
    ) -> PetWeights:
        """Read, validate and decode the weights of one level.

        Args:
            level: Which one.
            shape: Of the backbone that will run it.
            backbone_digest: `sha256:<hex>` of that backbone's weights. None: not compared.

        Raises:
            ArtifactError: One of its subclasses, by what is wrong; see `tasks.errors`.
        """
        described = self.description.level(level)
        if backbone_digest is not None and backbone_digest != described.backbone.digest:
            raise BackboneMismatch(
                f"level {level} of {self.description.name} was trained on "
                f"{described.backbone.name} {described.backbone.digest[:19]}, here is "
                f"{backbone_digest[:19]}: fetch those weights or train the task on these"
            )
        specs = level_specs(described, self.description.num_outputs, shape)
        with SafeFolder(self.base, self.inner) as folder:
            raw = folder.read(described.file, max_file_bytes(specs))
        check_sha256(raw, described)
        tensors = parse_tensors(raw, specs, described.file)
        layout = described.head
        return PetWeights(
            kind=described.pet.kind,
            sites=described.pet.decode(shape, tensors),
            head_weight=_float32_or_none(tensors.get(HEAD_WEIGHT)),
            head_bias=_float32_or_none(tensors.get(HEAD_BIAS)),
            num_bytes=len(raw),
            head_hidden=None if layout is None else _hidden_layer(layout, tensors),
        )

    def validate(self, shapes: Mapping[str, BackboneShape]) -> None:
        """Check the weights of every level.

        Args:
            shapes: By name of the backbone.

        Raises:
            BackboneUnknown: If a level's backbone is not among `shapes`.
            ArtifactError: One of its subclasses, by what is wrong.
        """
        for described in self.description.levels:
            shape = shapes.get(described.backbone.name)
            if shape is None:
                raise BackboneUnknown(
                    f"level {described.level} needs backbone {described.backbone.name}: fetch it "
                    f"with `petstream models fetch {described.backbone.name}`"
                )
            self.load_level(described.level, shape)


def open_artifact(
    base: Path, inner: tuple[str, ...] = (), *, expected_digest: str | None = None
) -> Artifact:
    """Open the artifact in `base` (followed where it is a link) / `inner` (never followed).

    Raises:
        ChecksumMismatch: If the description is not the one that `expected_digest` pins.
        ArtifactError: One of its subclasses, if the folder or the description is not valid.
    """
    with SafeFolder(base, inner) as folder:
        raw = folder.read(DESCRIPTION_FILE, MAX_DESCRIPTION_BYTES)
    digest = digest_of(raw)
    if expected_digest is not None and digest != expected_digest:
        raise ChecksumMismatch(
            f"{base.joinpath(*inner)} has digest {digest[:19]}, registered is "
            f"{expected_digest[:19]}: restore the folder or add the task again"
        )
    return Artifact(base, inner, parse_description(raw), digest)


def level_specs(
    described: LevelDescription, num_outputs: int, shape: BackboneShape
) -> dict[str, TensorSpec]:
    """Return what each tensor of a level's file must be, head included.

    Raises:
        TooManyTokens: If `max_tokens` exceeds the backbone's positions.
        DimensionsMismatch: If a head without a last layer gives another number of outputs.
        RankOutOfRange: If a hyperparameter does not fit the backbone.
    """
    num_positions = shape.max_positions - described.pet.reserved_positions()
    if described.max_tokens > num_positions:
        raise TooManyTokens(
            f"level {described.level} takes {described.max_tokens} tokens, its backbone and PET "
            f"have room for {num_positions}: lower max_tokens"
        )
    return _head_specs(described.head, num_outputs, shape) | described.pet.tensor_specs(shape)


def _head_specs(
    layout: HeadLayout | None, num_outputs: int, shape: BackboneShape
) -> dict[str, TensorSpec]:
    features = shape.hidden_size
    specs = {}
    if layout is not None and layout.hidden == "own":
        features = layout.features or shape.hidden_size
        specs[HIDDEN_WEIGHT] = TensorSpec((features, shape.hidden_size))
        specs[HIDDEN_BIAS] = TensorSpec((features,))
    if layout is None or layout.output is None:
        specs[HEAD_WEIGHT] = TensorSpec((num_outputs, features))
        specs[HEAD_BIAS] = TensorSpec((num_outputs,))
    elif features != num_outputs:
        raise DimensionsMismatch(
            f"embedding.dimensions is {num_outputs}, the head gives {features} on this backbone: "
            f"write the description for it, or give the head a last layer"
        )
    return specs


def _float32_or_none(values: NDArray[Any] | None) -> NDArray[np.float32] | None:
    return None if values is None else to_float32(values)


def _hidden_layer(layout: HeadLayout, tensors: Tensors) -> HiddenLayer | None:
    if layout.activation is None:
        return None
    if layout.hidden == "pooler":
        return HiddenLayer(None, None, layout.activation)
    return HiddenLayer(
        to_float32(tensors[HIDDEN_WEIGHT]), to_float32(tensors[HIDDEN_BIAS]), layout.activation
    )


def check_sha256(raw: bytes, described: LevelDescription) -> None:
    """Check a weight file's bytes against the description.

    Raises:
        ChecksumMismatch: If they are not the ones that it pins.
    """
    found = hashlib.sha256(raw).hexdigest()
    if found != described.sha256:
        raise ChecksumMismatch(
            f"{described.file} has SHA-256 {found[:12]}, task.json pins {described.sha256[:12]}: "
            f"copy the folder again, or write the artifact again"
        )
