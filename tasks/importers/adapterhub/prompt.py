"""Prompt tuning of the library: vectors beside the *output* of the embeddings.

They get neither positions nor token types nor the embeddings' LayerNorm, and the row's own tokens
keep their positions (`PromptTuning`, which a hook behind the embeddings calls).
"""

from tasks.importers.adapterhub.config import PromptConfig
from tasks.importers.adapterhub.source import Source
from tasks.importers.part import Part, build
from tasks.pets.prompt import Prompt


def import_prompt(config: PromptConfig, source: Source) -> list[Part]:
    """Return the prompt in the dense form.

    Raises:
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
    vectors = source.ledger.take(name, config.prompt_length, source.shape.hidden_size)
    return [Part(pet, {"embeddings.prompt": vectors})]
