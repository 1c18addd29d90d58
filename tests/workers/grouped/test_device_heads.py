"""Heads on a device: the op's results, in no more memory than they ask for."""

from collections.abc import Sequence

import pytest
import torch

import gpu_ops.grouped.ragged_head as grouped
from gpu_ops.grouped.kernel_file import Kernels
from gpu_ops.ragged_head import HeadWeights, HiddenWeights, ragged_head
from gpu_ops.spans import Span
from workers.grouped.device_heads import FEW_LABELS, run_heads

HIDDEN = 8


class Launches:
    """What was launched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: list[tuple[int, int]] = []
        self.pools: list[grouped.HeadPool] = []
        launch = grouped.ragged_head

        def noted(
            vectors: torch.Tensor,
            pool: grouped.HeadPool,
            slots: torch.Tensor,
            max_labels: int,
            kernels: Kernels | None,
        ) -> torch.Tensor:
            self.shapes.append((len(vectors), max_labels))
            self.pools.append(pool)
            return launch(vectors, pool, slots, max_labels, kernels)

        monkeypatch.setattr(grouped, "ragged_head", noted)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    """What a test launches."""
    return Launches(monkeypatch)


def random_head(num_labels: int) -> HeadWeights:
    """Return an output layer."""
    made = torch.Generator().manual_seed(num_labels)
    return HeadWeights(
        torch.randn(num_labels, HIDDEN, generator=made), torch.randn(num_labels, generator=made)
    )


def check(heads: Sequence[HeadWeights], nums_rows: Sequence[int]) -> None:
    """Run heads, each on as many rows as it has, and compare them with the op."""
    ends = [sum(nums_rows[: n + 1]) for n in range(len(nums_rows))]
    spans = [Span(end - rows, end) for end, rows in zip(ends, nums_rows, strict=True)]
    vectors = torch.randn(ends[-1], HIDDEN, generator=torch.Generator().manual_seed(1))
    expected = ragged_head(vectors, spans, heads)

    found = run_heads(vectors, spans, heads, None)

    for logits, own in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(logits), own)


def test_usual_heads_are_one_launch(launches: Launches) -> None:
    """However their numbers of labels differ, and of all vectors as they are."""
    check([random_head(n) for n in (2, 150, 9, FEW_LABELS, 77)], [3, 1, 7, 2, 5])

    assert launches.shapes == [(18, FEW_LABELS)]


def test_a_wide_head_does_not_size_the_logits_of_others(launches: Launches) -> None:
    """Each launch has the vectors of its own tasks alone, wherever they stand."""
    check([random_head(n) for n in (9, 4000, 1025, 5, 2048, 257)], [100, 4, 2, 40, 3, 8])

    assert sorted(launches.shapes) == [(4, 4000), (5, 2048), (8, 257), (140, 9)]


def test_no_logits_are_made_for_vectors_of_other_heads(launches: Launches) -> None:
    """Those with a layer before the output layer, or without one: torch runs them."""
    deep = random_head(3)._replace(
        hidden=HiddenWeights(torch.ones(HIDDEN, HIDDEN), torch.ones(HIDDEN), "gelu")
    )
    check([deep, random_head(300), HeadWeights(None, None), random_head(400)], [50, 2, 60, 1])

    assert launches.shapes == [(3, 400)]


def test_the_weights_of_a_head_of_its_own_are_not_copied(launches: Launches) -> None:
    """They may be hundreds of megabytes."""
    wide = random_head(5000)
    assert wide.weight is not None

    check([random_head(2), wide, random_head(3)], [2, 2, 2])

    assert sorted(len(pool.biases) for pool in launches.pools) == [5, 5000]
    assert any(pool.weights.data_ptr() == wide.weight.data_ptr() for pool in launches.pools)
