"""Prefixes of a packed batch: keys and values that rows of some tasks see before their own."""

from itertools import accumulate

import torch

from gpu_ops.row_gate import row_gates
from gpu_ops.varlen_attention import PrefixStates
from workers.expanded_weights import ExpandedWeights
from workers.packed_batch import PackedBatch


def prefix_states(
    layer: int, hidden: torch.Tensor, batch: PackedBatch, expanded: ExpandedWeights
) -> dict[int, PrefixStates]:
    """Return what each row sees in a layer before its own keys and values, by the row's number.

    Args:
        layer: Which.
        hidden: Shape (num_tokens, hidden): the layer's input, which gates read.
        batch: Its rows.
        expanded: Expands prefixes.
    """
    prefixes: dict[int, PrefixStates] = {}
    for segment in batch.segments:
        ops = segment.task.ops.prefixes.get(layer)
        if ops is None:
            continue
        states = expanded.prefix(ops)
        if ops.gate is None:
            prefixes |= dict.fromkeys(range(*segment.rows), states)
            continue
        gates = row_gates(hidden[slice(*segment.tokens)], segment.row_lens, ops.gate)
        firsts = accumulate(segment.row_lens[:-1], initial=0)
        for row, first in zip(range(*segment.rows), firsts, strict=True):
            keys, values = states
            prefixes[row] = PrefixStates(keys * gates[first], values * gates[first])
    return prefixes
