"""Where in a backbone a PET acts, as hyperparameters say it.

A site name is a site, which means that of every layer (`query`), or one with its layer before it
(`3.query`). In a mapping the name with a layer goes before the one without.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, Field

from tasks.backbone_shape import BackboneShape, LinearSite, Site
from tasks.errors import SiteNotFound

_LINEAR = "query|key|value|attention_output|ffn_input|ffn_output"
_NORM = "attention_norm|ffn_norm"
_LAYER = r"((0|[1-9][0-9]{0,3})\.)?"
_T = TypeVar("_T")

LinearName = Annotated[str, Field(pattern=rf"\A{_LAYER}({_LINEAR})\z")]
"""Of a linear site."""
BiasName = Annotated[str, Field(pattern=rf"\A({_LAYER}({_LINEAR}|{_NORM})|embeddings)\z")]
"""Of whatever has a bias; `embeddings` stands for their LayerNorm."""
NormName = Annotated[str, Field(pattern=rf"\A({_LAYER}({_NORM})|embeddings)\z")]
"""Of a LayerNorm; `embeddings` stands for theirs."""


def check_each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names if none names a site that another does.

    Raises:
        ValueError: If one does.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen or name.rpartition(".")[2] in seen:
            raise ValueError(f"site {name} is named twice")
        seen.add(name)
    if any(
        "." not in name and any(other.endswith(f".{name}") for other in names) for name in names
    ):
        raise ValueError("a site is named for all layers and for one of them")
    return names


EachOnce = AfterValidator(check_each_once)
"""Refuses a tuple of names that names a site twice."""


def expand(names: Sequence[str], shape: BackboneShape) -> Iterator[tuple[int, Site]]:
    """Yield (layer, site) for each place that the names stand for; `embeddings` is layer 0's.

    Raises:
        SiteNotFound: If a name has a layer that the backbone does not have.
    """
    for name in names:
        layer, _, site = name.rpartition(".")
        found: Any = site
        if site == "embeddings":
            yield 0, found
        elif not layer:
            for index in range(shape.num_layers):
                yield index, found
        elif int(layer) < shape.num_layers:
            yield int(layer), found
        else:
            raise SiteNotFound(
                f"{name} names layer {layer} of a backbone with {shape.num_layers} layers: the "
                f"task was trained for another one"
            )


def expand_linear(names: Sequence[str], shape: BackboneShape) -> Iterator[tuple[int, LinearSite]]:
    """Yield (layer, site) for each place that names of linear sites stand for.

    Raises:
        SiteNotFound: As `expand`.
    """
    for layer, site in expand(names, shape):
        yield layer, cast(LinearSite, site)


def at(pattern: Mapping[str, _T] | None, layer: int, site: Site, default: _T) -> _T:
    """Return what a mapping by site name says of one place."""
    if pattern is None:
        return default
    return pattern.get(f"{layer}.{site}", pattern.get(site, default))


def place(layer: int, site: Site) -> str:
    """Return what the names of a place's tensors begin with."""
    return "embeddings" if site == "embeddings" else f"layers.{layer}.{site}"
