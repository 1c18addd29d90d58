"""Prompt tuning of the library: vectors beside the *output* of the embeddings.

They get neither positions nor token types nor the embeddings' LayerNorm, and the row's own tokens
keep their positions (`PromptTuning`, which a hook behind the embeddings calls). Where the backbone
projects the embeddings, it does so behind that hook, and with the vectors too.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_families import EMBEDDING_PROJECTION
from tasks.errors import WrongBackbone
from tasks.importers.adapterhub.config import PromptConfig
from tasks.importers.adapterhub.source import Source
from tasks.importers.part import Part, build
from tasks.importers.rounding import float32
from tasks.pets.prompt import Prompt


def import_prompt(config: PromptConfig, source: Source) -> list[Part]:
    """Return the prompt in the dense form.

    Raises:
        WrongBackbone: If the backbone lacks the projection that its sizes call for.
        KeyMissing, BadCheckpoint: As `Ledger`.
    """
    is_first = config.combine == "prefix"
    pet = build(
        Prompt,
        num_tokens=config.prompt_length,
        place="first" if is_first else "after_cls",
        # The library's heads read the first of all positions, be it the row's own or not.
        pools_own=not is_first,
        enters="hidden",
    )
    name = f"prompt_tuning.prompt_tunings.{source.name}.prompt_embedding.weight"
    vectors = source.ledger.take(name, config.prompt_length, source.shape.embedding_size)
    if source.shape.embedding_size != source.shape.hidden_size:
        vectors = _projected(vectors, source)
    return [Part(pet, {"embeddings.prompt": vectors})]


def _projected(vectors: NDArray[np.float32], source: Source) -> NDArray[np.float32]:
    """Return what the backbone's projection makes of vectors of the embeddings' width."""
    weight = source.backbone.get(f"{EMBEDDING_PROJECTION}.weight")
    bias = source.backbone.get(f"{EMBEDDING_PROJECTION}.bias")
    if weight is None or bias is None:
        raise WrongBackbone(
            f"the backbone has no {EMBEDDING_PROJECTION}, which its embeddings of "
            f"{source.shape.embedding_size} values need: import it for the backbone that the "
            f"checkpoint's configuration names"
        )
    return float32(vectors.astype(np.float64) @ weight.T + bias)
