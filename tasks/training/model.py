"""The dense model of one level of one task: frozen encoder, PET ops, pooling, head."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AutoConfig, AutoModel, PreTrainedModel

from tasks.backbone_families import family_of
from tasks.description import Pooling
from tasks.site_ops import PetWeights
from tasks.training.batches import Batch
from tasks.training.errors import BadRecipe, NotTrainable
from tasks.training.injection import PetSites, load_weights, wrap_sites

_ATTENTION = "petstream_training"
_HAVE_POOLER = ("bert", "mpnet", "roberta")
_HAVE_OWN_ATTENTION = ("mpnet",)
"""Their attention can have no other function in its place."""


def _float32_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,  # noqa: ANN401 - transformers passes what its own functions need
) -> tuple[Tensor, None]:
    # The backward pass of torch's flash attention on a CPU takes 33 ms in bf16 and 2.5 ms in
    # float32 (64 rows of 12 tokens, Zen 5, torch 2.13).
    with torch.autocast("cpu", enabled=False):
        attended = functional.scaled_dot_product_attention(
            query.float(), key.float(), value.float(), attn_mask=attention_mask
        )
    return attended.transpose(1, 2).contiguous(), None


class DenseModel(nn.Module):
    """Token ids to logits; only PET ops and head have gradients."""

    def __init__(self, encoder: PreTrainedModel, num_labels: int, pooling: Pooling) -> None:
        super().__init__()
        # No dropout: it costs time, and few weights are trained.
        self.encoder: PreTrainedModel = encoder.train(False)
        self.encoder.requires_grad_(False)
        self.sites: PetSites = wrap_sites(encoder)
        self._takes_types = (
            family_of(encoder.config.to_dict()).pairs_have_types
            and encoder.config.type_vocab_size > 1
        )
        self.head = nn.Linear(encoder.config.hidden_size, num_labels)
        self.pooling = pooling

    def forward(self, batch: Batch, dropout: float = 0.0) -> Tensor:
        """Return logits, shape (num_rows, num_labels) or, tagging, (num_rows, num_tokens, ...)."""
        pooled = self.features(batch)
        if dropout:
            pooled = functional.dropout(pooled, dropout)
        with torch.autocast("cpu", enabled=False):
            logits: Tensor = self.head(pooled)
        return logits

    def features(self, batch: Batch) -> Tensor:
        """Return what the head sees, float32: pooled rows, or tokens where pooling is none."""
        types = {"token_type_ids": batch.type_ids} if self._takes_types else {}
        states = self.encoder(
            input_ids=batch.token_ids, attention_mask=batch.attention_mask, **types
        ).last_hidden_state.float()
        return pool(states, batch.attention_mask, self.pooling)

    def load(self, weights: PetWeights) -> None:
        """Become what an artifact stands for.

        Raises:
            NotTrainable: If its head has no last layer, as embeddings may have it.
        """
        if weights.head_weight is None or weights.head_bias is None:
            raise NotTrainable("a head without a last layer is an embedding's: nothing trains it")
        load_weights(self.sites, weights)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weights.head_weight.copy()))
            self.head.bias.copy_(torch.from_numpy(weights.head_bias.copy()))


def pool(states: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """Reduce token states (num_rows, num_tokens, hidden) to rows, unless pooling is `none`."""
    if pooling == "none":
        return states
    if pooling == "cls":
        return states[:, 0]
    mask = attention_mask.unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)


def load_dense_model(backbone: Path, num_labels: int, pooling: Pooling) -> DenseModel:
    """Load a backbone from a Hugging Face folder, with an untrained head.

    Raises:
        BadRecipe: If the folder holds no model of a known family.
    """
    AttentionInterface.register(_ATTENTION, _float32_attention)
    transformers.AttentionMaskInterface.register(_ATTENTION, transformers.masking_utils.sdpa_mask)
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        config = AutoConfig.from_pretrained(backbone, local_files_only=True)
        family = family_of(config.to_dict()).model_type
        encoder = AutoModel.from_pretrained(
            backbone,
            dtype=torch.float32,
            attn_implementation="eager" if family in _HAVE_OWN_ATTENTION else _ATTENTION,
            local_files_only=True,
            **({"add_pooling_layer": False} if family in _HAVE_POOLER else {}),
        )
    except (OSError, ValueError) as error:
        first_line = str(error).splitlines()[0][:160]
        raise BadRecipe(f"{backbone} holds no model to train on: {first_line}") from error
    return DenseModel(encoder, num_labels, pooling)
