"""The learning rate of phases of any length."""

import pytest
import torch

from tasks.training.schedule import one_cycle


@pytest.mark.parametrize("num_steps", range(1, 31))
def test_a_phase_of_any_length_has_a_rate(num_steps: int) -> None:
    """Every rate is in (0, 1], one of the first three is near the peak, the last is the least."""
    rates = [one_cycle(step, num_steps, 0.1) for step in range(num_steps)]

    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates[:3]) == pytest.approx(1.0, abs=0.05)
    assert rates[-1] == min(rates)


@pytest.mark.parametrize("num_steps", [11, 20, 30, 137])
def test_a_phase_with_a_warm_up_is_torchs(num_steps: int) -> None:
    """Where torch's schedule works, ours is the same."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=num_steps, pct_start=0.1, cycle_momentum=False
    )
    expected = []
    for _ in range(num_steps):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        if len(expected) < num_steps:
            schedule.step()

    found = [one_cycle(step, num_steps, 0.1) for step in range(num_steps)]

    assert found == pytest.approx(expected)
