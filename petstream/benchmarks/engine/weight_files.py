"""The files through which the systems of all environments get the same rows and weights.

A folder of weights holds `plain/` and, for each distinct set of PET weights, `pet-N.safetensors`
(the tensors in the dense form of `tasks.pets`, with the head) and, where the kind can be written
into a backbone's weights, `merged-N/`, a whole model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from petstream.benchmarks.engine.cases import DISTINCT_WEIGHTS, Rows
from tasks.backbone_families import FAMILIES

HEAD = "head."
BERT_MODULES: dict[str, str] = {str(k): module for k, module in FAMILIES["bert"].modules.items()}
"""Site -> its module within a layer of the models, which are BERTs."""


@dataclass(frozen=True, slots=True, eq=False)
class PetFile:
    """One set of PET weights and its head."""

    dense: dict[str, NDArray[Any]]
    head_weight: NDArray[np.float32]
    """Shape (labels, hidden)."""
    head_bias: NDArray[np.float32]

    def write(self, path: Path) -> None:
        """Write it."""
        head = {f"{HEAD}weight": self.head_weight, f"{HEAD}bias": self.head_bias}
        save_file({**self.dense, **head}, path)

    @classmethod
    def read(cls, path: Path) -> "PetFile":
        """Read it."""
        tensors = load_file(path)
        weight, bias = (tensors.pop(f"{HEAD}{name}") for name in ("weight", "bias"))
        return cls(tensors, weight, bias)


def plain_folder(weights: Path) -> Path:
    """Return the shared backbone's folder."""
    return weights / "plain"


def merged_folder(weights: Path, number: int) -> Path:
    """Return the folder of the whole model of a set of weights."""
    return weights / f"merged-{number}"


def pet_path(weights: Path, number: int) -> Path:
    """Return the file of a set of PET weights."""
    return weights / f"pet-{number}.safetensors"


def read_pets(weights: Path) -> list[PetFile]:
    """Return every distinct set of PET weights; task n has that at n modulo their number."""
    return [PetFile.read(pet_path(weights, number)) for number in range(DISTINCT_WEIGHTS)]


def write_rows(rows: Rows, path: Path) -> None:
    """Write a case's rows."""
    lens = np.array([len(ids) for ids in rows.token_ids], np.int64)
    save_file(
        {
            "token_ids": np.concatenate(rows.token_ids),
            "lens": lens,
            "tasks": np.array(rows.tasks, np.int64),
        },
        path,
    )


def read_rows(path: Path) -> Rows:
    """Read a case's rows."""
    tensors = load_file(path)
    ends = np.cumsum(tensors["lens"])[:-1]
    return Rows(tuple(np.split(tensors["token_ids"], ends)), tuple(tensors["tasks"].tolist()))
