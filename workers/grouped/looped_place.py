"""One task's ops at one product by torch: what grouped operators do not know."""

import torch
from torch.nn import functional as F

from gpu_ops.bottleneck import add_bottleneck_
from gpu_ops.low_rank import add_low_rank_
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import patch_weight
from workers.backbone import LinearWeights
from workers.expanded_weights import ExpandedWeights
from workers.packed_batch import Segment
from workers.task_ops import ProductOps


def run_looped_place(
    x: torch.Tensor,
    y: torch.Tensor,
    shared: LinearWeights,
    ops: ProductOps,
    segment: Segment,
    expanded: ExpandedWeights,
) -> torch.Tensor:
    """Return the product of one task's rows with all of its ops, the shared bias included.

    Args:
        x: Shape (rows, in). Stays as it is.
        y: Shape (rows, out): x multiplied by the shared weight, without bias.
        shared: Weight and bias of the product.
        ops: The task's.
        segment: Whose rows they are.
        expanded: Expands weights.
    """
    if ops.input_scale is not None:
        x = x * expanded.vector(ops.input_scale)
    weight = shared.weight
    if ops.dense is not None:
        weight = weight + ops.dense.to(weight.dtype)
    if ops.sparse is not None:
        weight = patch_weight(weight, ops.sparse.weights, torch.empty_like(weight))
    if weight is shared.weight and ops.input_scale is None:
        y = y + shared.bias
    else:
        y = F.linear(x, weight, shared.bias)
    rows = [Span(0, len(x))]
    if ops.low_rank is not None:
        factors = [expanded.low_rank(ops.low_rank)]
        add_low_rank_(y, x, rows, factors, row_lens=[segment.row_lens])
    if ops.output_scale is not None:
        y.mul_(expanded.vector(ops.output_scale))
    if ops.bias is not None:
        y.add_(expanded.vector(ops.bias))
    if ops.adapter is not None:
        add_bottleneck_(y, rows, [expanded.adapter(ops.adapter)])
    return y
