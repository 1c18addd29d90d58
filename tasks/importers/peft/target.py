"""Where PEFT put something: at a site of the backbone, or in a layer that belongs to the head."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tasks.backbone_families import EMBEDDING_NORM, BackboneFamily
from tasks.backbone_shape import LINEAR_SITES, NORM_SITES, BackboneShape, LinearSite, Site
from tasks.errors import KindUnsupported, WrongBackbone
from tasks.importers.model_heads import POOLER, head_modules

Place = tuple[int, Site]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Target:
    """A backbone as checkpoints of its family name it."""

    family: BackboneFamily
    shape: BackboneShape

    def place(self, module: str) -> Place | None:
        """Return the layer and site of a module, None for one that is no site.

        Raises:
            WrongBackbone: If the backbone has fewer layers.
        """
        if module == EMBEDDING_NORM:
            return 0, "embeddings"
        found = self.family.place(module)
        if found is not None and found[0] >= self.shape.num_layers:
            raise WrongBackbone(
                f"{module} is in layer {found[0]}, the backbone has {self.shape.num_layers}: "
                f"choose another with `--backbone`"
            )
        return found

    def linear(self, module: str) -> tuple[int, LinearSite] | None:
        """Return the place of a linear site; None for a layer of the head.

        Raises:
            KindUnsupported: If the module is neither.
        """
        found = self.place(module)
        if found is not None and found[1] in LINEAR_SITES:
            return found  # type: ignore[return-value]  # just checked
        if module in (POOLER, *head_modules(self.family)):
            return None
        raise KindUnsupported(
            f"{module} was trained, which is neither a linear layer of the encoder nor one of "
            f"the head: tasks cannot have it for themselves"
        )

    def is_norm(self, module: str) -> bool:
        """Whether a module is a LayerNorm that tasks can change."""
        found = self.place(module)
        return found is not None and found[1] in (*NORM_SITES, "embeddings")


@dataclass(frozen=True, slots=True)
class Taken(Generic[_T]):
    """What was found of one kind, by where it stands."""

    sites: dict[tuple[int, LinearSite], _T] = field(default_factory=dict)
    head: dict[str, _T] = field(default_factory=dict)

    @classmethod
    def at(cls, target: Target, modules: Iterable[str], found: Mapping[str, _T]) -> "Taken[_T]":
        """Sort what was found by module."""
        taken = cls({}, {})
        for module in modules:
            where = target.linear(module)
            if where is None:
                taken.head[module] = found[module]
            else:
                taken.sites[where] = found[module]
        return taken
