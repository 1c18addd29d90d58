"""Configurations of PEFT, one per kind and per option that changes what is computed."""

from typing import Any

import peft

_SEQUENCE: dict[str, Any] = {"task_type": "SEQ_CLS"}


def _lora(**options: Any) -> peft.LoraConfig:  # noqa: ANN401
    fields: dict[str, Any] = {"r": 2, "lora_alpha": 6, "target_modules": ["query", "value"]}
    return peft.LoraConfig(**(_SEQUENCE | fields | options))


WEIGHT_LIKE: dict[str, peft.PeftConfig] = {
    "lora": _lora(),
    "lora-rslora": _lora(use_rslora=True),
    "lora-patterns": _lora(
        target_modules=["query", "value", "output.dense"],
        rank_pattern={"value": 3, r".*layer\.1\.output\.dense": 4},
        alpha_pattern={"layer.0.attention.self.query": 1, "output.dense": 9},
    ),
    "lora-one-layer": _lora(layers_to_transform=[1], layers_pattern="layer"),
    "lora-excluded": _lora(target_modules="all-linear", exclude_modules=["pooler.dense", "key"]),
    "lora-regex": _lora(target_modules=r".*\.(key|intermediate\.dense)"),
    "lora-all-linear": _lora(target_modules="all-linear"),
    "lora-bias": _lora(target_modules=["query", "dense"], lora_bias=True),
    "lora-bias-all": _lora(bias="all"),
    "lora-bias-only": _lora(bias="lora_only", target_modules=["query", "dense"]),
    "dora": _lora(use_dora=True),
    "dora-all-linear": _lora(use_dora=True, target_modules="all-linear", use_rslora=True),
    "dora-bias-all": _lora(use_dora=True, bias="all"),
    "adalora": peft.AdaLoraConfig(
        **_SEQUENCE, target_modules=["query", "dense"], init_r=4, target_r=2, total_step=10,
        lora_alpha=8,
    ),
    "vera": peft.VeraConfig(**_SEQUENCE, target_modules=["query", "intermediate.dense"], r=4),
    "ia3": peft.IA3Config(**_SEQUENCE),
    "ia3-outputs": peft.IA3Config(
        **_SEQUENCE, target_modules=["query", "dense"], feedforward_modules=[]
    ),
    "beft": peft.BeftConfig(**_SEQUENCE, target_modules=["value"]),
    "shira": peft.ShiraConfig(**_SEQUENCE, target_modules=["query", "intermediate.dense"], r=2),
}  # fmt: skip
"""Whose change of each linear layer is one of its weight and bias."""

OTHERS: dict[str, peft.PeftConfig] = {
    "prefix": peft.PrefixTuningConfig(**_SEQUENCE, num_virtual_tokens=3),
    "prefix-projected": peft.PrefixTuningConfig(
        **_SEQUENCE, num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=8
    ),
    "prompt": peft.PromptTuningConfig(**_SEQUENCE, num_virtual_tokens=3),
    "p-tuning": peft.PromptEncoderConfig(**_SEQUENCE, num_virtual_tokens=3, encoder_hidden_size=8),
    "ln-tuning": peft.LNTuningConfig(**_SEQUENCE, target_modules=["LayerNorm"]),
    "tokens": peft.LoraConfig(
        **_SEQUENCE, r=2, target_modules=["query"], trainable_token_indices=[5, 41, 2]
    ),
    "lora-words": _lora(target_modules=["query", "word_embeddings"]),
    "lora-pooler-saved": _lora(modules_to_save=["pooler", "classifier"]),
    "lora-norms-saved": _lora(modules_to_save=["LayerNorm", "classifier"]),
}
