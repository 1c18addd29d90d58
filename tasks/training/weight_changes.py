"""Changes of a frozen weight matrix that are learned and end up sparse: mask and diff pruning."""

import math

import torch
from torch import Tensor, nn


class _KeepIfPositive(torch.autograd.Function):
    """1 where the score is positive, else 0; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: object, scores: Tensor) -> Tensor:
        return (scores > 0).to(scores.dtype)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0]


class ThresholdMask(nn.Module):
    """M * W with M = [score > 0] (Zhao et al. 2020: real scores, hard threshold, straight through).

    All scores start equal and positive, so that nothing is dropped at the start: with 3 to 6
    layers the random 5 % of the paper costs more accuracy than the mask wins back. A weight is
    dropped once its score has been pushed down by `START` in all.
    """

    START = 1.0

    def __init__(self, base_weight: Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.full_like(base_weight, self.START))

    def forward(self, weight: Tensor) -> Tensor:
        """Drop weights; shape as `weight`."""
        kept: Tensor = _KeepIfPositive.apply(self.scores)
        return weight * kept

    def dropped(self) -> Tensor:
        """Return where weights are dropped, bool, shape as the weight."""
        return self.scores.detach() <= 0


class PrunableDelta(nn.Module):
    """W + delta; `keep` freezes all but some of the delta at 0 (magnitude variant of diff pruning).

    The delta is dense while it is learned first; then its largest values are kept and tuned on
    (Guo et al. 2021, section on magnitude pruning, after their L0 relaxation).
    """

    def __init__(self, base_weight: Tensor) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros_like(base_weight))
        self._kept: Tensor | None = None
        self.delta.register_hook(self._only_kept)  # type: ignore[no-untyped-call]

    def forward(self, weight: Tensor) -> Tensor:
        """Add the delta; shape as `weight`."""
        return weight + self.delta

    def keep(self, least_magnitude: float) -> None:
        """Set every smaller value to 0 and train only the others from here on."""
        self._kept = (self.delta.detach().abs() >= least_magnitude).to(self.delta.dtype)
        with torch.no_grad():
            self.delta.mul_(self._kept)

    def _only_kept(self, gradient: Tensor) -> Tensor:
        return gradient if self._kept is None else gradient * self._kept


def prune_to_share(deltas: list[PrunableDelta], share: float) -> None:
    """Keep the largest values of all matrices together, `share` of them.

    Args:
        deltas: Of all sites and layers.
        share: Of all their values, in (0, 1).
    """
    magnitudes = torch.cat([change.delta.detach().abs().flatten() for change in deltas])
    num_kept = max(1, math.floor(share * magnitudes.numel()))
    least = float(torch.topk(magnitudes, num_kept).values[-1])
    for change in deltas:
        change.keep(least)
