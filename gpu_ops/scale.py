"""Task scales: IA3 (Liu et al. 2022, equations 1 and 2 of section 3.3)."""

from collections.abc import Sequence

import torch

from gpu_ops.spans import Span


def scale_(x: torch.Tensor, spans: Sequence[Span], scales: Sequence[torch.Tensor]) -> None:
    """Multiply the features of each task's rows by that task's scale.

    Semantics: x[s.start:s.end] *= scale, for each span s and its scale.

    Args:
        x: Shape (num_tokens, features): a site's input or its output, shared bias included.
            Changed in place.
        spans: Disjoint.
        scales: One per span, shape (features,).
    """
    for (start, end), scale in zip(spans, scales, strict=True):
        x[start:end].mul_(scale)
