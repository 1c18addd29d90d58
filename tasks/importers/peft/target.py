"""Where PEFT put something: at a site of the backbone, or at a layer that a task has as its own."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tasks.backbone_families import EMBEDDING_NORM, EMBEDDING_PROJECTION, BackboneFamily
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
        """Return the place of a linear site; None for a layer that becomes the task's own.

        Such are those of the head, and the projection behind the embeddings.

        Raises:
            KindUnsupported: If the module is none of these.
        """
        found = self.place(module)
        if found is not None and found[1] in LINEAR_SITES:
            return found  # type: ignore[return-value]  # just checked
        if module in (POOLER, *head_modules(self.family)) or self.is_projection(module):
            return None
        raise KindUnsupported(
            f"{module} was trained, which is neither a linear layer of the encoder nor one of "
            f"the head: tasks cannot have it for themselves"
        )

    def linear_size(self, module: str) -> tuple[int, int] | tuple[None, None]:
        """Return (out, in) of a linear layer's weight, (None, None) of the head's, which may vary.

        Raises:
            KindUnsupported: As `linear`.
        """
        if self.is_projection(module):
            return self.shape.hidden_size, self.shape.embedding_size
        where = self.linear(module)
        return (None, None) if where is None else self.shape.linear_shape(where[1])

    def is_projection(self, module: str) -> bool:
        """Whether a module is the projection behind the embeddings, if the backbone has one."""
        is_projected = self.shape.embedding_size != self.shape.hidden_size
        return is_projected and module == EMBEDDING_PROJECTION

    def is_norm(self, module: str) -> bool:
        """Whether a module is a LayerNorm that tasks can change."""
        found = self.place(module)
        return found is not None and found[1] in (*NORM_SITES, "embeddings")


@dataclass(frozen=True, slots=True)
class Taken(Generic[_T]):
    """What was found of one kind, by where it stands."""

    sites: dict[tuple[int, LinearSite], _T] = field(default_factory=dict)
    own: dict[str, _T] = field(default_factory=dict)
    """By module: of layers that become the task's own."""

    @classmethod
    def at(cls, target: Target, modules: Iterable[str], found: Mapping[str, _T]) -> "Taken[_T]":
        """Sort what was found by module."""
        taken = cls({}, {})
        for module in modules:
            where = target.linear(module)
            if where is None:
                taken.own[module] = found[module]
            else:
                taken.sites[where] = found[module]
        return taken
