"""The PET inference engine: backbones, task manager, packed runner, cascade, worker loop."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workers.engine import Engine
    from workers.pets_server import PetS

__all__ = ["Engine", "PetS"]


def __getattr__(name: str) -> object:
    """Import what the package offers when it is asked for: parts of it must not need torch."""
    if name == "PetS":
        from workers.pets_server import PetS

        return PetS
    if name == "Engine":
        from workers.engine import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
