"""Where the library puts its modules in each family of backbones, and how checkpoints name them."""

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.backbone_families import FAMILIES
from tasks.backbone_shape import LinearSite
from tasks.errors import KindUnsupported

# Names of the library's early versions -> today's.
_OLD_SEGMENTS = {
    "attention_text_task_adapters": "adapters",
    "attention_text_lang_adapters": "adapters",
    "layer_text_task_adapters": "adapters",
    "layer_text_lang_adapters": "adapters",
    "invertible_lang_adapters": "invertible_adapters",
}


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """The names of one family."""

    prefix: str
    """Of the base model within a model with a head."""
    layers: str
    linears: Mapping[LinearSite, str]
    """Within a layer, of those modules that the library wraps for LoRA."""
    bottlenecks: Mapping[LinearSite, str]
    """Within a layer, of what holds the adapters behind a site."""
    attention: str
    """Within a layer, of what holds the prefix's gates."""
    prefix_group: str
    """The prefix's name within the pool of prefixes."""

    def linear(self, layer: int, site: LinearSite) -> str:
        """Return the path of a wrapped linear module in the base model."""
        return f"{self.layers}.{layer}.{self.linears[site]}"

    def bottleneck(self, layer: int, site: LinearSite) -> str:
        """Return the path of what holds the adapters behind a site."""
        return f"{self.layers}.{layer}.{self.bottlenecks[site]}"

    def rename(self, name: str) -> str:
        """Return a tensor's name within the base model, as today's versions have it."""
        segments = name.removeprefix(f"{self.prefix}.").split(".")
        return ".".join(_OLD_SEGMENTS.get(segment, segment) for segment in segments)


_WRAPPED: tuple[LinearSite, ...] = ("query", "key", "value", "ffn_input", "ffn_output")


def _linears(family: str) -> Mapping[LinearSite, str]:
    return {site: FAMILIES[family].modules[site] for site in _WRAPPED}


def _like_bert(prefix: str) -> Places:
    return Places(
        prefix=prefix,
        layers="encoder.layer",
        linears=_linears("bert"),
        bottlenecks={"attention_output": "attention.output", "ffn_output": "output"},
        attention="attention.self",
        prefix_group="self_prefix",
    )


_PLACES: Mapping[str, Places] = {
    "bert": _like_bert("bert"),
    "roberta": _like_bert("roberta"),
    "xlm-roberta": _like_bert("roberta"),
    "electra": _like_bert("electra"),
    "distilbert": Places(
        prefix="distilbert",
        layers="transformer.layer",
        linears=_linears("distilbert"),
        bottlenecks={"attention_output": "attention_adapters", "ffn_output": "output_adapters"},
        attention="attention",
        prefix_group="self",
    ),
}


def places_of(model_type: str) -> Places:
    """Return the names of a family.

    Raises:
        KindUnsupported: If it is none of those that tasks can stand on.
    """
    found = _PLACES.get(model_type)
    if found is None:
        raise KindUnsupported(
            f"adapters for {model_type[:50]!r} are not imported: known are {', '.join(_PLACES)}"
        )
    return found
