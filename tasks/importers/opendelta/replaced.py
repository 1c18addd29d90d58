"""Parameters of the backbone that a checkpoint holds: those trained in place, and the rest.

OpenDelta saves whatever a model's `state_dict` gives: what was trained or, if it was not told to
hide the rest, all of the model. BitFit trains the backbone's own biases.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import LINEAR_SITES, Site
from tasks.errors import KindUnsupported
from tasks.importers.imported import Finding
from tasks.importers.opendelta.methods import site_names
from tasks.importers.opendelta.source import Source
from tasks.importers.part import Part, build
from tasks.importers.rounding import float32
from tasks.importers.sources import BackboneWeights
from tasks.pets.bitfit import BitFit
from tasks.pets.layer_norm import LayerNormTuning
from tasks.pets.site_names import place

_EMBEDDING_NORM = "embeddings.LayerNorm"


def import_replaced(source: Source, backbone: BackboneWeights) -> list[Part]:
    """Return biases and LayerNorms that differ from the backbone's, as deltas.

    Raises:
        KindUnsupported: If another of the backbone's parameters was trained.
        BadCheckpoint: As `Ledger`.
    """
    deltas: dict[tuple[str, str], NDArray[np.float32]] = {}
    num_same = 0
    for name in source.ledger.left():
        original = backbone.get(name)
        if original is None:
            continue
        delta = float32(source.ledger.take(name, *original.shape) - original)
        if not delta.any():
            num_same += 1
            continue
        module, _, tensor = name.rpartition(".")
        deltas[module, tensor] = delta
    if num_same:
        message = (
            f"{num_same} tensors are the backbone's own: the checkpoint is larger than it must"
        )
        source.findings.append(Finding("note", "unchanged_key", message))
    return _parts(deltas, source)


def _parts(deltas: dict[tuple[str, str], NDArray[np.float32]], source: Source) -> list[Part]:
    biases: dict[str, NDArray[np.float32]] = {}
    norms: dict[str, NDArray[np.float32]] = {}
    bias_places: list[tuple[int, Site]] = []
    norm_places: list[tuple[int, Site]] = []
    for (module, tensor), delta in deltas.items():
        where = _place(module, source)
        if where is None or (tensor == "weight" and where[1] in LINEAR_SITES):
            raise KindUnsupported(
                f"{module}.{tensor} differs from the backbone's: only biases and LayerNorms that "
                f"were trained in place are imported, or it was trained on another backbone"
            )
        target = place(*where)
        if (module, "weight") not in deltas:
            biases[f"{target}.bias"] = delta
            bias_places.append(where)
        elif tensor == "weight":
            zeros = np.zeros_like(delta)
            norms[f"{target}.weight"] = delta
            norms[f"{target}.bias"] = deltas.get((module, "bias"), zeros)
            norm_places.append(where)
    num_layers = source.shape.num_layers
    parts = []
    if biases:
        parts.append(Part(build(BitFit, sites=_names(bias_places, num_layers)), biases))
    if norms:
        parts.append(Part(build(LayerNormTuning, sites=_names(norm_places, num_layers)), norms))
    return parts


def _place(module: str, source: Source) -> tuple[int, Site] | None:
    if module == _EMBEDDING_NORM:
        return 0, "embeddings"
    return source.names.place(module)


def _names(places: list[tuple[int, Site]], num_layers: int) -> tuple[str, ...]:
    inner = [found for found in places if found[1] != "embeddings"]
    is_embedding = len(inner) < len(places)
    return (*site_names(inner, num_layers), *(("embeddings",) if is_embedding else ()))
