"""The places of a layer where PETs act, by names that no family of backbones owns."""

from typing import Literal, get_args

LinearSite = Literal["query", "key", "value", "attention_output", "ffn_input", "ffn_output"]
NormSite = Literal["attention_norm", "ffn_norm"]
ModuleSite = LinearSite | NormSite
Site = ModuleSite | Literal["attention", "embeddings"]
"""`attention` is where queries meet keys; `embeddings`, layer 0's only, is before all layers."""

LINEAR_SITES: tuple[LinearSite, ...] = get_args(LinearSite)
NORM_SITES: tuple[NormSite, ...] = get_args(NormSite)
