"""Prefix tuning, prompt tuning and P-tuning: `prompt_embeddings`, saved without what made them."""

from tasks.errors import KindUnsupported
from tasks.importers.part import Part, build
from tasks.importers.peft.config import FILE, PeftConfig
from tasks.importers.peft.keys import PeftKeys, as_float32
from tasks.importers.peft.target import Target
from tasks.pets.prefix import Prefix
from tasks.pets.prompt import Prompt

_FAMILIES_WITH_PREFIX = ("bert", "roberta", "electra")
"""Their models take keys and values of earlier tokens; PEFT refuses to train a prefix on others."""


def take_virtual_tokens(keys: PeftKeys, config: PeftConfig, target: Target) -> list[Part]:
    """Take the vectors of a prefix or a prompt.

    Raises:
        KindUnsupported: If the model has no place for a prefix.
        ImportRefused: If they are missing or do not fit.
    """
    is_prefix = config.kind == "PREFIX_TUNING"
    if not is_prefix and config.kind not in ("PROMPT_TUNING", "P_TUNING"):
        return []
    if config.number("num_transformer_submodules", 1) != 1:
        raise KindUnsupported(f"{FILE}: a prompt for a model with a decoder has no place here")
    shape = target.shape
    if not is_prefix:
        vectors = keys.take("", "prompt_embeddings", None, shape.embedding_size)
        # `cls` pooling then reads the first virtual token: PEFT puts them before the whole row.
        pet = build(Prompt, num_tokens=len(vectors), place="first", pools_own=False)
        return [Part(pet, {"embeddings.prompt": as_float32(vectors)})]
    if target.family.model_type not in _FAMILIES_WITH_PREFIX:
        raise KindUnsupported(f"models of {target.family.model_type} take no prefix")
    width = 2 * shape.num_layers * shape.hidden_size
    flat = keys.take("", "prompt_embeddings", None, width)
    whole = flat.reshape(len(flat), shape.num_layers, 2, shape.hidden_size)
    # The embeddings count the prefix as earlier tokens: the row's positions stand behind it.
    prefix = build(Prefix, num_tokens=len(flat), moves_positions=True)
    return [
        Part(
            prefix,
            {
                f"layers.{layer}.attention.prefix_{name}": as_float32(whole[:, layer, number])
                for layer in range(shape.num_layers)
                for number, name in enumerate(("keys", "values"))
            },
        )
    ]
