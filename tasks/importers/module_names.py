"""What transformers calls the modules at our sites, by the names of its classes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.backbone_shape import SITE_MODULES, LinearSite, NormSite

ModuleSite = LinearSite | NormSite


@dataclass(frozen=True, slots=True, eq=False)
class ModuleNames:
    """The names of one family of backbones."""

    prefix: str
    """Of the base model within a model with a head."""
    layers: str
    modules: Mapping[ModuleSite, str]
    """Each site's module within a layer."""
    is_like_bert: bool = False
    """Whether a layer consists of BERT's own modules, and not just of such linear ones."""

    def module_path(self, layer: int, site: ModuleSite) -> str:
        """Return a site's module within the base model."""
        return f"{self.layers}.{layer}.{self.modules[site]}"

    def split(self, path: str) -> tuple[int, str] | None:
        """Return (layer, path within it) of a module of the base model, None if it is in none."""
        match = re.fullmatch(rf"{re.escape(self.layers)}\.(0|[1-9]\d{{0,5}})\.(.+)", path)
        return None if match is None else (int(match[1]), match[2])

    def place(self, path: str) -> tuple[int, ModuleSite] | None:
        """Return the layer and site of a module of the base model, None if it is no site's."""
        found = self.split(path)
        if found is None:
            return None
        layer, inner = found
        site = next((site for site, module in self.modules.items() if module == inner), None)
        return None if site is None else (layer, site)


_DISTILBERT: Mapping[ModuleSite, str] = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attention_output": "attention.out_lin",
    "ffn_input": "ffn.lin1",
    "ffn_output": "ffn.lin2",
    "attention_norm": "sa_layer_norm",
    "ffn_norm": "output_layer_norm",
}

_FAMILIES: Mapping[str, ModuleNames] = {
    "Bert": ModuleNames("bert", "encoder.layer", SITE_MODULES, is_like_bert=True),
    "Roberta": ModuleNames("roberta", "encoder.layer", SITE_MODULES, is_like_bert=True),
    "XLMRoberta": ModuleNames("roberta", "encoder.layer", SITE_MODULES, is_like_bert=True),
    "Electra": ModuleNames("electra", "encoder.layer", SITE_MODULES, is_like_bert=True),
    "DistilBert": ModuleNames("distilbert", "transformer.layer", _DISTILBERT),
}


def names_of_class(model_class: str) -> ModuleNames | None:
    """Return the names for a class such as `BertForSequenceClassification`, None if not known."""
    match = re.match(r"([A-Za-z]+?)(For[A-Z]\w*|Model)\Z", model_class)
    return None if match is None else _FAMILIES.get(match[1])
