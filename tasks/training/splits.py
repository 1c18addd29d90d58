"""Splitting rows by a seed; the same seed and rows give the same split on every machine."""

import random
from typing import TypeVar

from tasks.training.errors import BadRows
from tasks.training.rows import LabelledRows

T = TypeVar("T")


def shuffled(items: list[T] | tuple[T, ...], seed: int) -> list[T]:
    """Return the items in an order that depends on the seed alone."""
    return random.Random(seed).sample(items, len(items))


def hold_out(rows: LabelledRows, share: float, seed: int) -> tuple[LabelledRows, LabelledRows]:
    """Split off a share of the rows; returns (kept, held out).

    Every label keeps at least one row to train on.

    Raises:
        BadRows: If the rows are too few for the share.
    """
    order = shuffled(rows.rows, seed)
    num_held = round(share * len(order))
    if not 0 < num_held < len(order):
        raise BadRows(f"{rows.origin}: {len(order)} rows are too few to hold out {share:g} of them")
    held, kept = order[:num_held], order[num_held:]
    if rows.kind in ("single_label", "multi_label"):
        trained = {label for row in kept for label in row.labels}
        returned = []
        for row in held:
            if not trained.issuperset(row.labels):
                trained.update(row.labels)
                returned.append(row)
        chosen = {id(row) for row in returned}
        kept += returned
        held = [row for row in held if id(row) not in chosen]
    if not held:
        raise BadRows(f"{rows.origin}: too few rows of each label to hold any out")
    return (
        LabelledRows(rows.kind, tuple(kept), rows.origin),
        LabelledRows(rows.kind, tuple(held), f"{rows.origin} (held out)"),
    )
