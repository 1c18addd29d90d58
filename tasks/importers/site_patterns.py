"""Places as hyperparameters name them: shortest form, one order, so that equal PETs are equal."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

from tasks.backbone_shape import LINEAR_SITES, NORM_SITES, BackboneShape, Site

Place = tuple[int, Site]
_T = TypeVar("_T", int, float)
_P = TypeVar("_P", bound=Place)
_ORDER: tuple[Site, ...] = (*LINEAR_SITES, *NORM_SITES, "embeddings")


def names_of(places: Iterable[Place], shape: BackboneShape) -> tuple[str, ...]:
    """Return `query` for a site of every layer, `3.query` for one of some layers."""
    found = set(places)
    names: list[str] = []
    for site in _ORDER:
        layers = sorted(layer for layer, place in found if place == site)
        if site == "embeddings":
            names += [site] if layers else []
        elif layers == list(range(shape.num_layers)):
            names.append(site)
        else:
            names += [f"{layer}.{site}" for layer in layers]
    return tuple(names)


def most_common(values: Iterable[_T]) -> _T:
    """Return the value most places have; of several, the smallest."""
    counted = Counter(values)
    return min(counted, key=lambda value: (-counted[value], value))


def pattern_of(values: Mapping[_P, _T], default: _T, shape: BackboneShape) -> dict[str, _T] | None:
    """Return what differs from the default by site name; None where nothing does."""
    pattern: dict[str, _T] = {}
    for value in sorted(set(values.values()) - {default}):
        places = [place for place, found in values.items() if found == value]
        pattern |= dict.fromkeys(names_of(places, shape), value)
    return pattern or None
