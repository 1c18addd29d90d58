"""What an importer makes of a checkpoint: a PET in the dense form, its head, and what to tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from messages.task_event import TaskKind
from tasks.description import HeadLayout, Pooling
from tasks.pets.pet import Pet

Origin = Literal["peft", "adapters", "opendelta", "transformers", "sentence-transformers"]
Severity = Literal["note", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that whoever imports should know."""

    severity: Severity
    code: str
    """For programs, such as `zero_lora_b`."""
    message: str
    """For people: what was found and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class ImportedHead:
    """The head that came with a checkpoint."""

    weight: NDArray[np.float32] | None
    """Shape (num_outputs, features). None, as the bias: it has no last layer."""
    bias: NDArray[np.float32] | None
    """Shape (num_outputs,)."""
    layout: HeadLayout | None
    """None: one layer."""
    hidden_weight: NDArray[np.float32] | None
    """Shape (features, hidden), of a hidden layer of its own."""
    hidden_bias: NDArray[np.float32] | None
    """Shape (features,)."""
    pooling: Pooling
    kind: TaskKind
    labels: tuple[str, ...] | None
    """None: the checkpoint does not name them."""


@dataclass(frozen=True, slots=True, eq=False)
class ImportedPet:
    """A checkpoint's PET for one backbone, and everything that came with it."""

    origin: Origin
    library_version: str | None
    base_model: str | None
    """As the checkpoint names it."""
    pet: Pet
    tensors: Mapping[str, NDArray[Any]]
    """The dense form that `pet.encode` takes."""
    head: ImportedHead | None
    """None: the checkpoint has none."""
    used_keys: frozenset[str]
    """Tensors of the checkpoint that became part of the task."""
    findings: tuple[Finding, ...]
