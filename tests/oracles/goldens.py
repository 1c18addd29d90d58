"""Reads what `write_adapter_goldens` wrote: checkpoints of the adapters library and its logits.

Needs neither that library nor torch. It reads no weights: a test hands `Golden.checkpoint` to the
code under test, and compares with `GoldenRow.logits`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
ADAPTERS = HERE / "adapters"
BACKBONES = HERE / "backbones"

VARIANTS: tuple[str, ...] = tuple(
    sorted(path.parent.name for path in ADAPTERS.glob("*/golden.json"))
)
"""The names of all variants, for `pytest.mark.parametrize`."""


@dataclass(frozen=True, slots=True, eq=False)
class GoldenRow:
    """One text or pair, and what the library answered to it alone and unpadded, in float32."""

    token_ids: NDArray[np.int64]
    """Shape (tokens,), special tokens included."""
    token_types: NDArray[np.int64]
    """Shape (tokens,); all 0 where the backbone has no token types."""
    logits: NDArray[np.float32]
    """Shape (labels,); for a tagging head (positions, labels), a prompt's positions included."""
    logits_without_pet: NDArray[np.float32]
    """The bare backbone's, with the same head."""


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """One variant."""

    name: str
    family: str
    """`bert`, `roberta` or `distilbert`."""
    checkpoint: Path
    """The folder as the library saved it, beside it `golden.json`."""
    backbone: Path
    """A Hugging Face folder: `config.json`, `model.safetensors`, `tokenizer.json`."""
    adapter: str | None
    """The adapter's name within the checkpoint; None if there is only a head."""
    library_reloads: bool
    """False: the library itself computes something else from this checkpoint than it saved."""
    unheard_tensors: tuple[str, ...]
    """Tensors of the PET that are in the checkpoint and on which no logit depends."""
    rows: tuple[GoldenRow, ...]

    @property
    def is_pickled(self) -> bool:
        """Say whether the PET's weights are a `.bin`, which only a process of its own may open."""
        return (self.checkpoint / "pytorch_adapter.bin").exists()


def load_golden(name: str) -> Golden:
    """Read a variant's `golden.json`."""
    folder = ADAPTERS / name
    document = json.loads((folder / "golden.json").read_bytes())
    return Golden(
        name=document["variant"],
        family=document["family"],
        checkpoint=folder,
        backbone=BACKBONES / document["family"],
        adapter=document["adapter"],
        library_reloads=document["library_reloads"],
        unheard_tensors=tuple(document["unheard_tensors"]),
        rows=tuple(
            GoldenRow(
                token_ids=np.array(row["token_ids"], np.int64),
                token_types=np.array(row["token_types"], np.int64),
                logits=np.array(row["logits"], np.float32),
                logits_without_pet=np.array(row["logits_without_pet"], np.float32),
            )
            for row in document["rows"]
        ),
    )
