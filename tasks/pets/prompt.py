"""Prompt tuning: trained vectors among the word embeddings. Lester et al., EMNLP 2021."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.backbone_shape import BackboneShape, Site
from tasks.errors import TooManyTokens
from tasks.pets.pet import Pet, Tensors, TensorSpec, to_float32
from tasks.site_ops import Prompt as PromptOp
from tasks.site_ops import PromptLevel, PromptPlace, SiteOps


class Prompt(Pet):
    """`num_tokens` virtual tokens in each row."""

    kind: Literal["prompt"] = "prompt"
    num_tokens: Annotated[int, Field(ge=1, le=1024)]
    place: PromptPlace = "first"
    enters: PromptLevel = "words"
    pools_own: bool = True

    def reserved_positions(self) -> int:
        """Return how many positions of the backbone rows cannot have."""
        return self.num_tokens if self.enters == "words" else 0

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """`embeddings.prompt` [num_tokens, embedding], or [num_tokens, hidden] behind the norm."""
        if self.reserved_positions() >= shape.max_positions:
            raise TooManyTokens(
                f"a prompt of {self.num_tokens} tokens leaves none of the backbone's "
                f"{shape.max_positions} positions: train with a shorter one"
            )
        width = shape.embedding_size if self.enters == "words" else shape.hidden_size
        return {"embeddings.prompt": TensorSpec((self.num_tokens, width))}

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """A `prompt` op at the embeddings."""
        op = PromptOp(
            vectors=to_float32(tensors["embeddings.prompt"]),
            place=self.place,
            enters=self.enters,
            pools_own=self.pools_own,
        )
        return {(0, "embeddings"): SiteOps(prompt=op)}
