"""The learning rate over a phase of training: one cycle, whatever the number of steps."""

import math

_FIRST_SHARE = 1 / 25
"""Of the peak, at the first step."""
_LAST_SHARE = _FIRST_SHARE / 1e4
"""Of the peak, at the last step."""


def one_cycle(step: int, num_steps: int, warm_up_share: float) -> float:
    """Return the learning rate of a step as a share of the peak, in (0, 1].

    Half a cosine up to the peak, half a cosine down to nearly 0 (Smith and Topin 2018): torch's
    `OneCycleLR`, except that a phase too short for a warm-up starts at the peak, where torch
    divides by zero or never gets off the ground.

    Args:
        step: From 0; steps after the last one stay at its rate.
        num_steps: Of the phase, at least 1.
        warm_up_share: Of the steps, in [0, 1).
    """
    peak_step = max(warm_up_share * num_steps - 1, 0.0)
    if step < peak_step:
        return _anneal(_FIRST_SHARE, 1.0, step / peak_step)
    down = max(num_steps - 1 - peak_step, 1.0)
    return _anneal(1.0, _LAST_SHARE, min((step - peak_step) / down, 1.0))


def _anneal(start: float, end: float, progress: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * progress))
