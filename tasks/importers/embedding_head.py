"""What an imported embedding does behind the encoder: pooling, a layer or none, length 1 or not."""

from pathlib import Path
from typing import Literal

from tasks.backbone_shape import BackboneShape
from tasks.description import EmbeddingLayout, HeadLayout
from tasks.errors import HeadMissing, KindUnsupported, WrongBackbone
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.head_file import read_head
from tasks.importers.imported import ImportedHead
from tasks.importers.merge import Linear
from tasks.importers.sentence_modules import Dense, SentenceModules

EmbeddingPooling = Literal["mean", "cls"]


def embedding_head(
    modules: SentenceModules | None,
    backbone: BackboneTensors,
    *,
    head: Path | None,
    pooling: EmbeddingPooling | None,
    normalise: bool | None,
) -> tuple[ImportedHead, EmbeddingLayout]:
    """Return the head of an embedding and what its vectors are.

    Args:
        modules: Of sentence-transformers, where the checkpoint has them.
        backbone: What it stands on.
        head: A weight file with a projection, instead of what the modules have.
        pooling: What whoever imports says; None: what the modules say.
        normalise: The same; without modules, vectors stay as they are.

    Raises:
        HeadMissing: If nobody says how tokens are pooled, or `head` holds no layer for it.
        KindUnsupported: If the pooling contradicts the modules.
        WrongBackbone: If a layer of the modules reads another width.
    """
    said = None if modules is None else modules.pooling
    if said is not None and pooling not in (None, said):
        raise KindUnsupported(f"the checkpoint's modules pool by {said}: leave `--pooling` out")
    chosen = pooling or said
    if chosen is None:
        raise HeadMissing(
            "the checkpoint does not say how its tokens become one vector: add `--pooling mean` or "
            "`--pooling cls`"
        )
    if head is not None:
        found = read_head(head, backbone, kind="embedding", pooling=chosen)
    else:
        found = _head_of(None if modules is None else modules.dense, chosen, backbone.shape)
    if normalise is None:
        normalise = modules is not None and modules.normalise
    last = found.hidden_bias if found.weight is None else found.bias
    dimensions = backbone.shape.hidden_size if last is None else len(last)
    return found, EmbeddingLayout(dimensions=dimensions, normalise=normalise)


def _head_of(dense: Dense | None, pooling: EmbeddingPooling, shape: BackboneShape) -> ImportedHead:
    hidden = shape.hidden_size
    if dense is not None and dense.weight.shape[1] != hidden:
        raise WrongBackbone(
            f"the Dense module reads {dense.weight.shape[1]} features, the backbone has {hidden}: "
            f"choose another with `--backbone`"
        )
    if dense is None:
        return _built(pooling, HeadLayout(output="none"))
    if dense.activation is None:
        return _built(pooling, None, output=(dense.weight, dense.bias))
    features = None if len(dense.bias) == hidden else len(dense.bias)
    layout = HeadLayout(hidden="own", features=features, activation=dense.activation, output="none")
    return _built(pooling, layout, hidden=(dense.weight, dense.bias))


def _built(
    pooling: EmbeddingPooling,
    layout: HeadLayout | None,
    *,
    hidden: Linear | None = None,
    output: Linear | None = None,
) -> ImportedHead:
    return ImportedHead(
        weight=None if output is None else output[0],
        bias=None if output is None else output[1],
        layout=layout,
        hidden_weight=None if hidden is None else hidden[0],
        hidden_bias=None if hidden is None else hidden[1],
        pooling=pooling,
        kind="embedding",
        labels=None,
    )
