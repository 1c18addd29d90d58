"""What transformers calls things in each family of backbones: the only file that knows.

The families are encoders of one build, post-LayerNorm layers of self-attention and feed-forward,
and differ in the names of modules and of `config.json`'s keys, and in their embeddings. Names are
given as they stand within the base model (`BertModel`, `MPNetModel`, ...); a checkpoint of a model
with a head has the family's prefix before them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tasks.sites import ModuleSite

Dimension = Literal[
    "num_layers",
    "hidden_size",
    "num_heads",
    "intermediate_size",
    "vocab_size",
    "position_rows",
    "embedding_size",
]

WORDS = "embeddings.word_embeddings"
POSITIONS = "embeddings.position_embeddings"
TOKEN_TYPES = "embeddings.token_type_embeddings"
EMBEDDING_NORM = "embeddings.LayerNorm"
EMBEDDING_PROJECTION = "embeddings_project"
"""ELECTRA alone, where the embeddings are not as wide as the layers."""
RELATIVE_ATTENTION = "encoder.relative_attention_bias"
"""MPNet alone."""

_MAX_PADDING_ID = 1 << 20
_DEFAULT_PADDING_ID = 1


@dataclass(frozen=True, slots=True, eq=False)
class BackboneFamily:
    """The names of one family."""

    model_type: str
    """As in `config.json`."""
    prefix: str
    """Of the base model within a model with a head, without the dot."""
    layers: str
    """Path of the list of layers within the base model."""
    modules: Mapping[ModuleSite, str]
    """Each site's module within a layer."""
    config_keys: Mapping[Dimension, str]
    """Each dimension's key in `config.json`; without one for `embedding_size`, that is
    `hidden_size` whatever the config says."""
    pairs_have_types: bool
    """True: a pair is `[CLS] a [SEP] b [SEP]`, and where the model has a second token type, that is
    b's. False: all tokens have the first type, or the model has no types at all."""
    positions_follow_padding: bool = False
    """True: the first token reads the row of the position table behind the padding token's."""

    def module_path(self, layer: int, site: ModuleSite) -> str:
        """Return a site's module within the base model."""
        return f"{self.layers}.{layer}.{self.modules[site]}"

    @property
    def is_like_bert(self) -> bool:
        """Whether a layer consists of modules with BERT's names, not just of such products."""
        return self.modules is _BERT_MODULES

    def split(self, module_path: str) -> tuple[int, str] | None:
        """Return the layer of a module and its path within the layer, None if it is in none.

        Args:
            module_path: Within the base model or within a model with a head.
        """
        path = module_path.removeprefix(f"{self.prefix}.")
        match = re.fullmatch(rf"{re.escape(self.layers)}\.(0|[1-9]\d{{0,5}})\.(.+)", path)
        return None if match is None else (int(match[1]), match[2])

    def place(self, module_path: str) -> tuple[int, ModuleSite] | None:
        """Return the layer and site of a module, None for one that is no site.

        Args:
            module_path: Within the base model or within a model with a head.
        """
        found = self.split(module_path)
        if found is None:
            return None
        layer, inner = found
        site = next((site for site, module in self.modules.items() if module == inner), None)
        return None if site is None else (layer, site)

    def first_position(self, config: Mapping[str, Any]) -> int:
        """Return the row of the position table that the first token of a row reads.

        Raises:
            ValueError: If the padding token's id, which it hangs on, cannot be one.
        """
        if not self.positions_follow_padding:
            return 0
        padding_id = config.get("pad_token_id", _DEFAULT_PADDING_ID)
        if type(padding_id) is not int or not 0 <= padding_id <= _MAX_PADDING_ID:
            raise ValueError(
                f"expected pad_token_id in 0..{_MAX_PADDING_ID}, behind which {self.model_type} "
                f"counts positions, got {padding_id!r}"
            )
        return padding_id + 1


_BERT_MODULES: Mapping[ModuleSite, str] = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "ffn_input": "intermediate.dense",
    "ffn_output": "output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_norm": "output.LayerNorm",
}
_DISTILBERT_MODULES: Mapping[ModuleSite, str] = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attention_output": "attention.out_lin",
    "ffn_input": "ffn.lin1",
    "ffn_output": "ffn.lin2",
    "attention_norm": "sa_layer_norm",
    "ffn_norm": "output_layer_norm",
}
_MPNET_MODULES: Mapping[ModuleSite, str] = {
    "query": "attention.attn.q",
    "key": "attention.attn.k",
    "value": "attention.attn.v",
    "attention_output": "attention.attn.o",
    "ffn_input": "intermediate.dense",
    "ffn_output": "output.dense",
    "attention_norm": "attention.LayerNorm",
    "ffn_norm": "output.LayerNorm",
}
_BERT_KEYS: Mapping[Dimension, str] = {
    "num_layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "vocab_size": "vocab_size",
    "position_rows": "max_position_embeddings",
}
_ELECTRA_KEYS: Mapping[Dimension, str] = {**_BERT_KEYS, "embedding_size": "embedding_size"}
_DISTILBERT_KEYS: Mapping[Dimension, str] = {
    "num_layers": "n_layers",
    "hidden_size": "dim",
    "num_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "vocab_size": "vocab_size",
    "position_rows": "max_position_embeddings",
}

FAMILIES: Mapping[str, BackboneFamily] = {
    family.model_type: family
    for family in (
        BackboneFamily(
            model_type="bert",
            prefix="bert",
            layers="encoder.layer",
            modules=_BERT_MODULES,
            config_keys=_BERT_KEYS,
            pairs_have_types=True,
        ),
        BackboneFamily(
            model_type="distilbert",
            prefix="distilbert",
            layers="transformer.layer",
            modules=_DISTILBERT_MODULES,
            config_keys=_DISTILBERT_KEYS,
            pairs_have_types=False,
        ),
        BackboneFamily(
            model_type="roberta",
            prefix="roberta",
            layers="encoder.layer",
            modules=_BERT_MODULES,
            config_keys=_BERT_KEYS,
            pairs_have_types=False,
            positions_follow_padding=True,
        ),
        BackboneFamily(
            model_type="electra",
            prefix="electra",
            layers="encoder.layer",
            modules=_BERT_MODULES,
            config_keys=_ELECTRA_KEYS,
            pairs_have_types=True,
        ),
        BackboneFamily(
            model_type="mpnet",
            prefix="mpnet",
            layers="encoder.layer",
            modules=_MPNET_MODULES,
            config_keys=_BERT_KEYS,
            pairs_have_types=False,
            positions_follow_padding=True,
        ),
    )
}
"""By `model_type`. MiniLM comes as BERT or as RoBERTa, and says which."""


def family_of(config: Mapping[str, Any]) -> BackboneFamily:
    """Return the family of a Hugging Face `config.json`.

    Raises:
        ValueError: If it is none of those known.
    """
    model_type = config.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise ValueError(f"model_type is {model_type!r}, known are {', '.join(FAMILIES)}")
    return family


_CLASS_NAMES: Mapping[str, str] = {
    "Bert": "bert",
    "DistilBert": "distilbert",
    "Electra": "electra",
    "MPNet": "mpnet",
    "Roberta": "roberta",
    "XLMRoberta": "roberta",
}


def family_of_class(model_class: str) -> BackboneFamily | None:
    """Return the family of a class such as `BertForSequenceClassification`, None if not known."""
    match = re.match(r"([A-Za-z]+?)(For[A-Z]\w*|Model)\Z", model_class)
    return FAMILIES.get(_CLASS_NAMES.get(match[1], "")) if match else None
