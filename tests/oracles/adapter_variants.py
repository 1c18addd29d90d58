"""What the adapters library is asked to write: one `Variant` per folder of `adapters/`.

Runs in the environment of `make oracle-env` alone. Hidden size 32, two layers: see
`tests.oracles.tiny_backbones`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adapters import (  # type: ignore[import-not-found]
    BnConfig,
    CompacterConfig,
    CompacterPlusPlusConfig,
    ConfigUnion,
    DiReftConfig,
    DoubleSeqBnConfig,
    DoubleSeqBnInvConfig,
    IA3Config,
    LoRAConfig,
    LoReftConfig,
    MAMConfig,
    NoReftConfig,
    ParBnConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    SeqBnConfig,
    SeqBnInvConfig,
    UniPELTConfig,
)
from adapters.configuration.adapter_config import (  # type: ignore[import-not-found]
    AdapterPlusConfig,
    DoRAConfig,
    DvoRAConfig,
    VeraConfig,
)

from tests.oracles.tiny_backbones import Family


@dataclass(frozen=True, slots=True)
class Head:
    """A head of the library, or of a plain transformers model where `kind` says static."""

    kind: Literal["classification", "tagging", "static-classification", "static-tagging"]
    options: Mapping[str, Any] = field(default_factory=dict)


TWO_LAYERS = Head("classification", {"num_labels": 3})
"""The library's default: dense, tanh, dense, on the vector of the first position."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One checkpoint: a PET, a head and the backbone under both."""

    name: str
    config: Any
    """A configuration of the adapters library; None for a head alone."""
    head: Head = TWO_LAYERS
    family: Family = "bert"
    adapter: str = "sst-2"
    """The adapter's name, which is part of every key."""
    pickled: bool = False
    """Ask for `.bin` although safetensors could hold it."""
    aged: str | None = None
    """Edit the checkpoint into one of this earlier version, or `unversioned` with the names of
    adapter-transformers 1; the logits are then those that the library has after reading it."""
    seed: int = 0
    """Another one where by chance a PET has no effect: no unit of a bottleneck alive at [CLS]."""


def _bottlenecks() -> dict[str, Any]:
    activations = ("gelu", "gelu_new", "swish", "tanh", "leakyrelu")
    small = {"reduction_factor": 4}
    return {
        "seq-bn": SeqBnConfig(**small),
        **{
            f"seq-bn-{name.replace('_', '-')}": SeqBnConfig(**small, non_linearity=name)
            for name in activations
        },
        "seq-bn-reduction-2": SeqBnConfig(reduction_factor=2),
        "seq-bn-reduction-5": SeqBnConfig(reduction_factor=5),
        "seq-bn-reduction-8": SeqBnConfig(reduction_factor=8),
        "seq-bn-reduction-16": SeqBnConfig(reduction_factor=16),
        "seq-bn-reduction-half": SeqBnConfig(reduction_factor=0.5),
        "seq-bn-reduction-per-layer": SeqBnConfig(reduction_factor={"0": 16, "default": 4}),
        "seq-bn-leave-out": SeqBnConfig(**small, leave_out=[0]),
        "seq-bn-residual-after-norm": SeqBnConfig(**small, residual_before_ln=False),
        "seq-bn-residual-post-add": SeqBnConfig(**small, residual_before_ln="post_add"),
        "seq-bn-no-norm-after": SeqBnConfig(**small, original_ln_after=False),
        "seq-bn-no-norm-after-residual-after-norm": SeqBnConfig(
            **small, original_ln_after=False, residual_before_ln=False
        ),
        "seq-bn-no-norm-after-residual-post-add": SeqBnConfig(
            **small, original_ln_after=False, residual_before_ln="post_add"
        ),
        "seq-bn-no-norm-before": SeqBnConfig(**small, original_ln_before=False),
        "seq-bn-no-norm-at-all": SeqBnConfig(
            **small, original_ln_before=False, original_ln_after=False
        ),
        "seq-bn-own-norm-before": SeqBnConfig(**small, ln_before=True),
        "seq-bn-own-norm-after": SeqBnConfig(**small, ln_after=True),
        "seq-bn-own-norm-after-residual-inside": SeqBnConfig(
            **small, ln_after=True, adapter_residual_before_ln=True
        ),
        "seq-bn-own-norms": SeqBnConfig(
            **small, ln_before=True, ln_after=True, adapter_residual_before_ln=True
        ),
        "seq-bn-scaling": SeqBnConfig(**small, scaling=2.5),
        "seq-bn-scaling-learned": SeqBnConfig(**small, scaling="learned"),
        "seq-bn-scaling-channel": SeqBnConfig(**small, scaling="channel"),
        "seq-bn-gated": SeqBnConfig(**small, use_gating=True),
        "seq-bn-invertible": SeqBnInvConfig(**small),
        "double-seq-bn": DoubleSeqBnConfig(**small),
        "double-seq-bn-norms-before": DoubleSeqBnConfig(**small, original_ln_before=True),
        "double-seq-bn-own-norms": DoubleSeqBnConfig(**small, ln_before=True, ln_after=True),
        "double-seq-bn-gated": DoubleSeqBnConfig(**small, use_gating=True),
        "double-seq-bn-invertible": DoubleSeqBnInvConfig(**small),
        "attention-bn": BnConfig(
            mh_adapter=True, output_adapter=False, non_linearity="relu", **small
        ),
        "adapter-plus": AdapterPlusConfig(**small, stochastic_depth=0.0),
        "par-bn": ParBnConfig(**small),
        "par-bn-attention": ParBnConfig(**small, mh_adapter=True, output_adapter=False),
        "par-bn-both": ParBnConfig(**small, mh_adapter=True, non_linearity="gelu"),
        "par-bn-scaling-learned": ParBnConfig(**small, scaling="learned"),
        "par-bn-gated": ParBnConfig(**small, use_gating=True),
        "par-bn-own-norms": ParBnConfig(**small, ln_before=True, ln_after=True),
        "par-bn-no-norm-after": ParBnConfig(**small, original_ln_after=False),
        "par-bn-and-seq-bn": ConfigUnion(
            ParBnConfig(**small, mh_adapter=True, output_adapter=False), SeqBnConfig(**small)
        ),
    }


def _compacters() -> dict[str, Any]:
    small = {"reduction_factor": 4}
    return {
        "compacter": CompacterConfig(**small),
        "compacter-plus-plus": CompacterPlusPlusConfig(**small),
        "compacter-own-rule": CompacterConfig(**small, shared_phm_rule=False),
        "compacter-factored-rule": CompacterConfig(**small, factorized_phm_rule=True),
        "compacter-own-factored-rule": CompacterConfig(
            **small, shared_phm_rule=False, factorized_phm_rule=True
        ),
        "compacter-whole-weight": CompacterConfig(**small, factorized_phm_W=False),
        "compacter-shared-weight": CompacterConfig(**small, shared_W_phm=True),
        "compacter-rank-2": CompacterConfig(**small, phm_rank=2),
        "compacter-two-axes": CompacterConfig(**small, phm_dim=2),
        "compacter-no-bias": CompacterConfig(**small, phm_bias=False),
    }


def _low_rank() -> dict[str, Any]:
    everywhere = {
        "attn_matrices": ["q", "k", "v"],
        "intermediate_lora": True,
        "output_lora": True,
    }
    feed_forward = {"selfattn_lora": False}
    return {
        "lora": LoRAConfig(),
        "lora-rank-1": LoRAConfig(r=1, alpha=1),
        "lora-alpha-above-rank": LoRAConfig(r=4, alpha=16),
        "lora-alpha-below-rank": LoRAConfig(r=8, alpha=2),
        "lora-everywhere": LoRAConfig(r=4, alpha=6, **everywhere),
        "lora-query": LoRAConfig(r=2, attn_matrices=["q"]),
        "lora-key-value": LoRAConfig(r=3, attn_matrices=["k", "v"]),
        "lora-intermediate": LoRAConfig(r=2, intermediate_lora=True, **feed_forward),
        "lora-output": LoRAConfig(r=2, output_lora=True, **feed_forward),
        "lora-leave-out": LoRAConfig(r=2, leave_out=[1]),
        "lora-bert-init": LoRAConfig(r=2, init_weights="bert"),
        "lora-gated": LoRAConfig(r=4, alpha=16, use_gating=True),
        "lora-gated-everywhere": LoRAConfig(r=2, use_gating=True, **everywhere),
        "dora": DoRAConfig(r=4, alpha=8),
        "dora-everywhere": DoRAConfig(r=2, alpha=2, **everywhere),
        "vera": VeraConfig(r=4, alpha=8),
        "dvora": DvoRAConfig(r=4, alpha=8),
        "ia3": IA3Config(),
        "ia3-output": IA3Config(output_lora=True),
        "ia3-everywhere": IA3Config(**everywhere),
        "ia3-leave-out": IA3Config(leave_out=[0]),
        "ia3-alpha-2": IA3Config(alpha=2),
        "ia3-gated": IA3Config(use_gating=True),
    }


def _prompts() -> dict[str, Any]:
    prefix = {"prefix_length": 4, "bottleneck_size": 8}
    return {
        "prefix": PrefixTuningConfig(**prefix),
        "prefix-flat": PrefixTuningConfig(prefix_length=4, flat=True),
        "prefix-relu": PrefixTuningConfig(**prefix, non_linearity="relu"),
        "prefix-leave-out": PrefixTuningConfig(prefix_length=4, flat=True, leave_out=[0]),
        "prefix-gated": PrefixTuningConfig(**prefix, use_gating=True),
        "prefix-gated-apart": PrefixTuningConfig(
            prefix_length=4, flat=True, use_gating=True, shared_gating=False
        ),
        "prompt": PromptTuningConfig(prompt_length=5),
        "prompt-after-bos": PromptTuningConfig(prompt_length=5, combine="prefix_after_bos"),
        "mam": MAMConfig(PrefixTuningConfig(**prefix), ParBnConfig(reduction_factor=4)),
        "unipelt": UniPELTConfig(
            PrefixTuningConfig(**prefix),
            SeqBnConfig(reduction_factor=4),
            LoRAConfig(r=4, alpha=2),
        ),
    }


def _interventions() -> dict[str, Any]:
    return {
        "loreft": LoReftConfig(),
        "loreft-rank-4": LoReftConfig(r=4),
        "loreft-suffix": LoReftConfig(r=2, prefix_positions=2, suffix_positions=2),
        "loreft-tied": LoReftConfig(r=2, prefix_positions=2, suffix_positions=2, tied_weights=True),
        "loreft-one-layer": LoReftConfig(layers=[1], r=3),
        "noreft": NoReftConfig(r=2),
        "noreft-relu": NoReftConfig(r=2, non_linearity="relu"),
        "direft": DiReftConfig(r=2),
    }


def _heads() -> list[Variant]:
    pet = LoRAConfig(r=2)
    heads = {
        "one-layer": Head("classification", {"num_labels": 3, "layers": 1}),
        "three-layers": Head("classification", {"num_labels": 3, "layers": 3}),
        "relu": Head("classification", {"num_labels": 3, "activation_function": "relu"}),
        "no-activation": Head("classification", {"num_labels": 3, "activation_function": None}),
        "no-bias": Head("classification", {"num_labels": 3, "bias": False}),
        "pooler": Head("classification", {"num_labels": 3, "layers": 1, "use_pooler": True}),
        "labels": Head(
            "classification",
            {"num_labels": 3, "id2label": {0: "bad", 1: "fair", 2: "good"}},
        ),
        "multi-label": Head("classification", {"num_labels": 4, "multilabel": True}),
        "tagging": Head("tagging", {"num_labels": 5}),
        "tagging-two-layers": Head("tagging", {"num_labels": 5, "layers": 2}),
        "static-classification": Head("static-classification", {"num_labels": 3}),
        "static-tagging": Head("static-tagging", {"num_labels": 5}),
    }
    regression = Head("classification", {"num_labels": 1})
    return [
        *(Variant(f"head-{name}", pet, head) for name, head in heads.items()),
        Variant("head-regression", pet, regression, seed=1),
    ]


def _families() -> list[Variant]:
    pets = {
        "bare": None,
        "seq-bn": SeqBnConfig(reduction_factor=4),
        "double-seq-bn": DoubleSeqBnConfig(reduction_factor=4),
        "lora": LoRAConfig(r=4, alpha=6, intermediate_lora=True, output_lora=True),
        "ia3": IA3Config(),
        "prefix-flat": PrefixTuningConfig(prefix_length=6, flat=True),
    }
    static = Head("static-classification", {"num_labels": 3})
    families: tuple[Family, ...] = ("roberta", "distilbert")
    return [
        *(
            Variant(f"{family}-{name}", pet, family=family)
            for family in families
            for name, pet in pets.items()
        ),
        *(Variant(f"{family}-head-static", LoRAConfig(r=2), static, family) for family in families),
    ]


VARIANTS: tuple[Variant, ...] = (
    Variant("bare", None),
    *(
        Variant(name, config)
        for group in (_bottlenecks, _compacters, _low_rank, _prompts, _interventions)
        for name, config in group().items()
    ),
    Variant("seq-bn-reduction-64", SeqBnConfig(reduction_factor=64), seed=1),
    Variant("seq-bn-named-adapters", SeqBnConfig(reduction_factor=8), adapter="adapters"),
    Variant("seq-bn-pickled", SeqBnConfig(reduction_factor=8), pickled=True, seed=1),
    Variant("lora-before-1.1", LoRAConfig(r=4, alpha=16), aged="adapters.1.0.1"),
    Variant(
        "seq-bn-unversioned",
        SeqBnConfig(reduction_factor=4, non_linearity="gelu"),
        aged="unversioned",
    ),
    Variant("prompt-tagging", PromptTuningConfig(prompt_length=5), Head("tagging")),
    *_heads(),
    *_families(),
)
