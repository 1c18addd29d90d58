"""The types of numbers that a level computes in: float32, and bfloat16 where it pays.

In bfloat16 the products' weights and the rows' states between them are bfloat16; sums within
products and LayerNorms, parameters of LayerNorms, embeddings, poolings and heads stay float32.
"""

from typing import Literal

from workers.processor import this_processor

Precision = Literal["float32", "bfloat16"]

PrecisionChoice = Literal["auto", "float32", "bfloat16"]
"""`auto`: bfloat16 for tasks that passed the comparison, where the processor has it and it was
measured to be faster; float32 otherwise."""


def precisions_of(choice: PrecisionChoice) -> tuple[Precision, ...]:
    """Return which precisions an engine is built for, by what a user chose."""
    if choice != "auto":
        return (choice,)
    return ("float32", "bfloat16") if this_processor().has_bfloat16 else ("float32",)
