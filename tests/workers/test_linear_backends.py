"""The back end that runs the shared products: the fastest that is also right."""

import pytest
import torch
from torch.nn import functional as F

from workers import linear_backends
from workers.linear_backends import choose


@pytest.mark.parametrize("shape", [(40, 24), (384, 1536), (1, 8)])
@pytest.mark.parametrize("rows", [1, 16, 133])
def test_the_chosen_back_ends_compute_the_product(shape: tuple[int, int], rows: int) -> None:
    """With the shared weight and with an unpacked one."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(shape, generator=generator)
    bias = torch.randn(shape[0], generator=generator)
    x = torch.randn(rows, shape[1], generator=generator)
    expected = x.double() @ weight.double().t() + bias.double()

    choice = choose(weight, bias)

    shared = choice.shared_linear(weight, bias)(x)
    unpacked = linear_backends.unpacked_op(choice.unpacked)(x, weight, bias)
    for found in (shared, unpacked):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    fastest = min(choice.measurements, key=lambda m: m.us_per_row)
    assert choice.shared == fastest.backend


def test_a_back_end_that_computes_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The oneDNN ops are private to torch: were they to change, plain torch remains."""

    def wrong(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weight, bias) + 1

    monkeypatch.setattr(linear_backends, "_onednn", wrong)
    weight, bias = torch.randn(8, 8), torch.randn(8)
    monkeypatch.setattr(
        linear_backends, "_onednn_product", lambda packed, b, x: F.linear(x, weight, b) + 1
    )

    choice = choose(weight, bias)

    assert (choice.shared, choice.unpacked) == ("torch", "torch")
