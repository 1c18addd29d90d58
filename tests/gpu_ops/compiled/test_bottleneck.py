"""Compiled adapters against the formula in float64."""

import pytest
import torch
from torch.nn import functional as F

from gpu_ops.activations import Activation
from gpu_ops.bottleneck import BottleneckWeights
from gpu_ops.compiled.bottleneck import CompiledBottleneck
from gpu_ops.compiled.library import Library
from gpu_ops.spans import Span
from tests.gpu_ops.compiled.conftest import assert_close, normal


def adapter(hidden: int, bottleneck: int, activation: Activation, seed: int) -> BottleneckWeights:
    """Random weights."""
    return BottleneckWeights(
        normal(bottleneck, hidden, seed=seed) / hidden**0.5,
        normal(bottleneck, seed=seed + 1),
        normal(hidden, bottleneck, seed=seed + 2) / bottleneck**0.5,
        normal(hidden, seed=seed + 3),
        activation,
    )


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("held", [torch.float32, torch.float16], ids=["held-f32", "held-f16"])
@pytest.mark.parametrize(("hidden", "bottleneck"), [(384, 64), (40, 7), (9, 1)])
def test_each_task_s_rows_go_through_its_adapter(
    library: Library,
    dtype: torch.dtype,
    activation: Activation,
    held: torch.dtype,
    hidden: int,
    bottleneck: int,
) -> None:
    """Bottlenecks of their own; other rows stay."""
    spans = [Span(0, 1), Span(1, 14), Span(20, 61)]
    h = normal(64, hidden).to(dtype)
    adapters = []
    for number in range(len(spans)):
        wide = adapter(hidden, bottleneck + number, activation, 10 * number)
        adapters.append(
            BottleneckWeights(
                wide.down_weight.to(held),
                wide.down_bias,
                wide.up_weight.to(held),
                wide.up_bias,
                activation,
            )
        )
    expected = h.double()
    for (start, end), one in zip(spans, adapters, strict=True):
        inner = h[start:end].double() @ one.down_weight.double().t() + one.down_bias.double()
        active = F.gelu(inner) if activation == "gelu" else F.relu(inner)
        up = active @ one.up_weight.double().t()
        expected[start:end] += up + one.up_bias.double()

    CompiledBottleneck(library)(h, spans, adapters)

    assert_close(h, expected)


def test_what_it_does_not_compute_it_says(library: Library) -> None:
    """Other activations are torch's."""
    compiled = CompiledBottleneck(library)

    assert compiled.takes(adapter(4, 2, "gelu", 0))
    assert not compiled.takes(adapter(4, 2, "tanh", 0))


def test_nan_stays_in_its_row(library: Library, dtype: torch.dtype) -> None:
    h = normal(9, 24).to(dtype)
    h[4, 3] = torch.nan

    CompiledBottleneck(library)(h, [Span(0, 9)], [adapter(24, 3, "relu", 0)])

    assert h.isnan().any(dim=1).tolist() == [row == 4 for row in range(9)]
