"""SHiRA: a sparse change of weights, as values and their places."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import LINEAR_SITES
from tasks.errors import BadCheckpoint, KindUnsupported
from tasks.importers.imported import Finding
from tasks.importers.part import Part
from tasks.importers.peft.keys import PeftKeys
from tasks.importers.peft.target import Target
from tasks.pets.diff import Diff


def take_shira(keys: PeftKeys, target: Target) -> tuple[list[Part], list[Finding]]:
    """Take the changed weights.

    Raises:
        KindUnsupported: If a layer is changed that is no site.
        BadCheckpoint: If a place is outside its matrix.
        ImportRefused: If tensors are missing or do not fit.
    """
    deltas = {}
    for module in keys.modules("shira_weight", "shira_indices"):
        where = target.linear(module)
        if where is None:
            raise KindUnsupported(
                f"{module} is no linear layer of the encoder and is changed sparsely: save it whole"
            )
        deltas[where] = _take(keys, module, target.shape.linear_shape(where[1]))
    if not deltas:
        return [], []
    shape = target.shape
    pet = Diff()
    tensors: dict[str, NDArray[Any]] = {
        name: np.zeros([size or 0 for size in spec.shape], np.float32)
        for name, spec in pet.tensor_specs(shape).items()
        if not name.endswith((".diff_gaps", ".diff_values"))
    }
    for layer in range(shape.num_layers):
        for site in LINEAR_SITES:
            zeros = np.zeros(shape.linear_shape(site), np.float32)
            tensors[f"layers.{layer}.{site}.delta"] = deltas.get((layer, site), zeros)
    return [Part(pet, tensors)], _rounding(list(deltas.values()))


def _take(keys: PeftKeys, module: str, size: tuple[int, int]) -> NDArray[np.float32]:
    values = keys.take(module, "shira_weight", None)
    indices = keys.take(module, "shira_indices", 2, len(values))
    if not np.issubdtype(indices.dtype, np.integer) or not (
        (indices >= 0).all() and (indices < np.array(size)[:, None]).all()
    ):
        raise BadCheckpoint(
            f"{keys.key(module, 'shira_indices')} points outside a matrix of {list(size)}"
        )
    delta = np.zeros(size, np.float32)
    np.add.at(delta, (indices[0], indices[1]), values)
    return delta


def _rounding(deltas: list[NDArray[np.float32]]) -> list[Finding]:
    error = max(float(np.abs(d - d.astype(np.float16).astype(np.float32)).max()) for d in deltas)
    if error == 0:
        return []
    message = f"sparse changes are stored as float16: rounded by at most {error:.1e}"
    return [Finding("note", "rounded", message)]
