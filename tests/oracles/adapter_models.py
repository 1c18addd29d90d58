"""A variant's model in the adapters library: built, made random, asked for logits.

Runs in the environment of `make oracle-env` alone.
"""

import zlib
from pathlib import Path
from typing import Any

import adapters  # type: ignore[import-not-found]
import numpy as np
import torch
from adapters import AutoAdapterModel
from adapters.heads import (  # type: ignore[import-not-found]
    ClassificationHead,
    MultiLabelClassificationHead,
)
from adapters.loading import AdapterLoader  # type: ignore[import-not-found]
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from tests.oracles.adapter_variants import Variant
from tests.oracles.tiny_backbones import Row, rows

Logits = NDArray[np.float32]
"""Of one row: shape (labels,), or (positions, labels) where a head reads every position."""


class OracleModel:
    """The library's model of a variant, in eval mode."""

    def __init__(self, variant: Variant, model: Any) -> None:  # noqa: ANN401
        self.variant = variant
        self.model = model

    @classmethod
    def random(cls, variant: Variant, backbone: Path) -> "OracleModel":
        """Build a variant whose PET and head are random, by its name and seed."""
        torch.manual_seed(zlib.crc32(variant.name.encode()) + variant.seed)
        oracle = cls(variant, _with_head(variant, backbone))
        if variant.config is not None:
            oracle.model.add_adapter(variant.adapter, config=variant.config)
            oracle.model.set_active_adapters(variant.adapter)
        with torch.no_grad():
            _make_random(oracle.pet_tensors())
            _make_random(oracle._head_tensors())
        oracle.model.train(False)
        return oracle

    @classmethod
    def load(cls, variant: Variant, backbone: Path, checkpoint: Path) -> "OracleModel":
        """Let the library read a checkpoint."""
        oracle = cls(variant, _with_head(variant, backbone))
        if variant.config is None:
            oracle.model.load_head(str(checkpoint), use_safetensors=True)
        else:
            oracle.model.load_adapter(
                str(checkpoint),
                set_active=True,
                use_safetensors=(checkpoint / "adapter.safetensors").exists(),
            )
        oracle.model.train(False)
        return oracle

    def pet_tensors(self) -> dict[str, torch.Tensor]:
        """Return what a checkpoint has of the PET; some names may share one tensor."""
        belongs = AdapterLoader(self.model).filter_func(self.variant.adapter)
        return {name: t for name, t in self.model.state_dict().items() if belongs(name)}

    def _head_tensors(self) -> dict[str, torch.Tensor]:
        prefix = f"{self.model.base_model_prefix}."
        return {n: t for n, t in self.model.state_dict().items() if not n.startswith(prefix)}

    def logits(self) -> list[Logits]:
        """Run every row of the family, alone and unpadded."""
        static = self.variant.head.kind.startswith("static")
        head = {} if static else {"head": self.variant.adapter}
        with torch.inference_mode():
            return [
                self.model(**self._inputs(row), **head).logits[0].numpy()
                for row in rows(self.variant.family)
            ]

    def logits_without_pet(self) -> list[Logits]:
        """Run every row through the bare backbone and the head; the PET stays switched off."""
        if self.variant.config is not None:
            self.model.set_active_adapters(None)
        return self.logits()

    def hidden(self) -> NDArray[np.float32]:
        """Return the last hidden states of all rows, one under the other."""
        with torch.inference_mode():
            states = [
                self.model.base_model(**self._inputs(row)).last_hidden_state[0]
                for row in rows(self.variant.family)
            ]
        hidden: NDArray[np.float32] = torch.cat(states).numpy()
        return hidden

    def unheard_tensors(self) -> list[str]:
        """Return the names of a PET's tensors that are saved and that no logit depends on."""
        logits = self.logits()
        unheard = []
        for name, tensor in self.pet_tensors().items():
            kept = tensor.clone()
            # Not one number for all: a LayerNorm behind would take it away again.
            tensor.add_(0.3 * torch.randn(tensor.shape))
            if largest_gap(logits, self.logits()) < 1e-6:
                unheard.append(name)
            tensor.copy_(kept)
        return unheard

    def _inputs(self, row: Row) -> dict[str, torch.Tensor]:
        inputs = {
            "input_ids": torch.tensor([row.token_ids]),
            "attention_mask": torch.ones(1, len(row.token_ids), dtype=torch.long),
        }
        if self.variant.family == "bert":
            inputs["token_type_ids"] = torch.tensor([row.token_types])
        return inputs


def largest_gap(one: list[Logits], other: list[Logits]) -> float:
    """Return the largest absolute difference of two runs of the same rows."""
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def _with_head(variant: Variant, backbone: Path) -> Any:  # noqa: ANN401
    """Load a backbone into the class that has the variant's head."""
    options = dict(variant.head.options)
    if variant.head.kind == "static-classification":
        model = AutoModelForSequenceClassification.from_pretrained(backbone, **options)
        adapters.init(model)
    elif variant.head.kind == "static-tagging":
        model = AutoModelForTokenClassification.from_pretrained(backbone, **options)
        adapters.init(model)
    else:
        model = AutoAdapterModel.from_pretrained(backbone)
        if variant.head.kind == "tagging":
            model.add_tagging_head(variant.adapter, **options)
        else:
            multi_label = options.pop("multilabel", False)
            head = MultiLabelClassificationHead if multi_label else ClassificationHead
            model.add_prediction_head(head(model, variant.adapter, **options))
    # It is written into the checkpoint, and is the path that the backbone was loaded from.
    model.config.name_or_path = f"tiny-{variant.family}"
    return model


def _make_random(tensors: dict[str, torch.Tensor]) -> None:
    """Fill every tensor in place; one that has several names is filled once."""
    done: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.data_ptr() in done:
            continue
        done.add(tensor.data_ptr())
        noise = torch.randn(tensor.shape)
        leaf = name.rsplit(".", 1)[-1]
        is_ia3 = leaf == "lora_B" and name.removesuffix("B") + "A" not in tensors
        if leaf == "base":
            pass  # of ReFT's orthogonal projection, random already
        elif leaf == "original":
            tensor.add_(0.4 * noise.triu(1))  # Householder vectors, beside a diagonal of signs
        elif name.endswith(".m.weight"):
            tensor.mul_(1 + 0.3 * noise)  # DoRA's magnitudes, at first the weight's norms
        elif leaf.startswith("vera_"):
            tensor.add_(0.3 * noise)
        elif is_ia3 or leaf == "scaling":
            tensor.copy_(1 + 0.5 * noise)
        elif leaf == "control_trans" or name.endswith("prompt_embedding.weight"):
            tensor.copy_(noise)  # as large as what the tokens have beside it
        elif tensor.ndim == 1 and leaf == "weight":
            tensor.copy_(1 + 0.3 * noise)  # a LayerNorm's
        else:
            # Compacter's tensors, the ones with three axes, are multiplied twice before they act.
            tensor.copy_({1: 0.3, 2: 0.35, 3: 0.6}[tensor.ndim] * noise)
