"""Hyperparameters of a training run, with defaults for each PET kind.

All epochs are run and the best one is kept: under a one-cycle schedule the validation figure falls
while the rate is high and rises at the end, so that a patience of a few epochs stops at the start.
"""

from dataclasses import dataclass, replace
from typing import TypedDict, Unpack

from tasks.pets.pet import Pet
from tasks.training.errors import BadRecipe


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a PET is trained; AdamW with a one-cycle schedule over all epochs of a phase."""

    epochs: int
    peak_rate: float
    """Of the PET's tensors."""
    head_rate: float
    """Of the head, which starts at the linear probe."""
    dense_rate: float = 2e-4
    """Diff pruning: peak rate of those epochs; all weights of the encoder move in them."""
    dense_epochs: int = 0
    """Diff pruning: epochs with a dense delta, before the magnitude cut and `epochs` more."""
    kept_share: float = 0.0
    """Diff pruning: share of the deltas that are kept."""
    rows_per_batch: int = 64
    weight_decay: float = 0.01
    warm_up_share: float = 0.1
    start_c: float = 1.0
    """scikit-learn's C of the logistic regression that the head starts at. The probe's own C fits
    nearly every training row, and rows that are fitted leave the PET no gradient; where training
    is short for the number of labels, a larger C starts nearer to the goal."""
    dropout: float = 0.1
    """Of the pooled vector before the head, while training."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "dense_epochs"):
            if not 0 <= getattr(self, name) <= 1000:
                raise BadRecipe(f"{name} is {getattr(self, name)}: give 0 to 1000")
        for name in ("peak_rate", "head_rate", "dense_rate"):
            if not 0 < getattr(self, name) <= 10:
                raise BadRecipe(f"{name} is {getattr(self, name)}: give more than 0, at most 10")
        if not 1 <= self.rows_per_batch <= 4096:
            raise BadRecipe(f"rows per batch is {self.rows_per_batch}: give 1 to 4096")
        if not 0 < self.start_c <= 1e6:
            raise BadRecipe(f"start_c is {self.start_c}: give more than 0, at most 1e6")
        for name in ("kept_share", "dropout", "warm_up_share"):
            if not 0 <= getattr(self, name) < 1:
                raise BadRecipe(f"{name} is {getattr(self, name)}: give a share below 1")


class RecipeChanges(TypedDict, total=False):
    """What a run may do otherwise than its PET kind's default recipe; None changes nothing."""

    epochs: int | None
    peak_rate: float | None
    head_rate: float | None
    dense_rate: float | None
    dense_epochs: int | None
    kept_share: float | None
    rows_per_batch: int | None
    start_c: float | None
    dropout: float | None
    seed: int | None


_DEFAULTS: dict[str, Recipe] = {
    "lora": Recipe(epochs=4, peak_rate=2e-3, head_rate=2e-3),
    "ia3": Recipe(epochs=12, peak_rate=1e-2, head_rate=2e-3, weight_decay=0.0),
    "bitfit": Recipe(epochs=8, peak_rate=4e-3, head_rate=2e-3, weight_decay=0.0),
    "adapter": Recipe(epochs=4, peak_rate=2e-3, head_rate=2e-3),
    "mask": Recipe(epochs=4, peak_rate=8e-2, head_rate=2e-3, weight_decay=0.0),
    "diff": Recipe(
        epochs=3, dense_epochs=2, kept_share=0.005, peak_rate=1e-3, head_rate=2e-3, weight_decay=0.0
    ),
}
_OF_OTHERS = Recipe(epochs=4, peak_rate=2e-3, head_rate=2e-3)
"""Of kinds of other distributions."""


def recipe_for(pet: Pet, **changes: Unpack[RecipeChanges]) -> Recipe:
    """Return the defaults of a PET kind with the given fields (not None) changed.

    Raises:
        BadRecipe: If a value cannot work, or not for this kind.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    recipe: Recipe = replace(_DEFAULTS.get(pet.kind, _OF_OTHERS), **given)  # type: ignore[arg-type]
    if pet.kind != "diff" and (recipe.dense_epochs or recipe.kept_share):
        raise BadRecipe(f"dense_epochs and kept_share are for diff: give {pet.kind} neither")
    if pet.kind == "diff" and recipe.epochs and not recipe.dense_epochs:
        raise BadRecipe("dense_epochs is 0, so nothing is known of what to keep: give 1 or more")
    return recipe
