"""The back end that runs the shared products: the fastest that is also right."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from gpu_ops.compiled.library import Library
from gpu_ops.compiled.product import CompiledProduct
from workers import linear_backends
from workers.backbone import PRODUCTS, Product
from workers.encoder import Encoder
from workers.engine import Engine
from workers.linear_backends import Linear, choose
from workers.machine_figures import MachineFigures

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


def random_linear(num_out: int, num_in: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(num_out, num_in, generator=generator),
        torch.randn(num_out, generator=generator),
    )


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", [(40, 24), (384, 1536), (1, 8)])
@pytest.mark.parametrize("rows", [1, 16, 133])
def test_the_chosen_back_ends_compute_the_product(
    library: Library, shape: tuple[int, int], rows: int, dtype: torch.dtype
) -> None:
    """With the shared weight and with an unpacked one."""
    weight, bias = (tensor.to(dtype) for tensor in random_linear(*shape))
    x = torch.randn(rows, shape[1], generator=torch.Generator().manual_seed(2)).to(dtype)
    expected = x.double() @ weight.double().t() + bias.double()

    choice = choose(weight, bias, MachineFigures(), library)

    shared = choice.shared_linear(weight, bias)(x)
    unpacked = choice.unpacked_linear.op(x, weight, bias)
    tolerance = TOLERANCES[dtype]
    for found in (shared, unpacked):
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
    assert choice.us_per_row[choice.shared] == min(choice.us_per_row.values())


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

    choice = choose(weight, bias, MachineFigures(), None)

    assert (choice.shared, choice.unpacked) == ("torch", "torch")


def test_a_compiled_product_that_computes_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch, library: Library
) -> None:
    """Another compiler than the tests' may have compiled it."""

    def wrong(
        _self: CompiledProduct, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        return F.linear(x, weight, bias) + 1

    monkeypatch.setattr(CompiledProduct, "__call__", wrong)
    weight, bias = random_linear(40, 24)

    choice = choose(weight, bias, MachineFigures(), library)

    assert "compiled-packed" in choice.us_per_row
    assert "compiled" not in choice.us_per_row


def test_the_compiled_product_is_one_of_float32(library: Library) -> None:
    """Its figures are those of its own sources; bfloat16 is left to the others."""
    names = []

    class Seen(MachineFigures):
        def measured(
            self, name: str, measure: Callable[[], Mapping[str, float]]
        ) -> Mapping[str, float]:
            names.append(name)
            found = {"torch": 2.0, "compiled": 1.5, "compiled-packed": 1.0}
            return found if library.name in name else {"torch": 2.0}

    weight, bias = random_linear(40, 24)
    x = torch.randn(5, 24)

    choice = choose(weight, bias, Seen(), library)
    narrow = choose(weight.bfloat16(), bias.bfloat16(), Seen(), library)

    assert names == [f"linear 40x24 float32 {library.name}", "linear 40x24 bfloat16"]
    assert (choice.shared, choice.unpacked) == ("compiled-packed", "compiled")
    assert choice.unpacked_linear.name == f"compiled {library.name}"
    assert narrow.unpacked_linear.name == "torch"
    assert (narrow.shared, narrow.unpacked) == ("torch", "torch")
    for found in (
        choice.shared_linear(weight, bias)(x),
        choice.unpacked_linear.op(x, weight, bias),
    ):
        torch.testing.assert_close(found, F.linear(x, weight, bias), rtol=1e-5, atol=1e-5)


def test_what_was_measured_before_decides() -> None:
    """And nothing is measured again."""

    class Known(MachineFigures):
        def measured(self, name: str, measure: object) -> Mapping[str, float]:
            assert name == "linear 40x24 float32"
            return {"torch": 2.0, "onednn": 1.5, "onednn-packed": 1.7}

    choice = choose(*random_linear(40, 24), Known(), None)

    assert (choice.shared, choice.unpacked) == ("onednn", "onednn")


def test_a_back_end_that_is_gone_is_not_taken_from_old_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The figures may be of a torch with oneDNN."""
    figures = MachineFigures()
    figures.measured("linear 40x24 float32", lambda: {"torch": 2.0, "onednn-packed": 1.0})
    monkeypatch.setattr(linear_backends, "_has_onednn", lambda _dtype: False)

    choice = choose(*random_linear(40, 24), figures, None)

    assert (choice.shared, choice.unpacked) == ("torch", "torch")


def test_kernels_of_few_rows_are_built_before_the_first_query(
    small_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every row count that a batch of up to 256 tokens is padded to, where oneDNN multiplies."""
    encoder = small_engine.encoders["float32"]
    assert isinstance(encoder, Encoder)
    shared = encoder.products
    rows: dict[Product, list[int]] = {product: [] for product in PRODUCTS}

    def counted(product: Product, linear: Linear) -> Linear:
        def run(x: torch.Tensor) -> torch.Tensor:
            rows[product].append(len(x))
            return linear(x)

        return run

    for product in PRODUCTS:
        linear = counted(product, shared._linears[0, product])
        monkeypatch.setitem(shared._linears, (0, product), linear)
    choices = {product: shared.choices[product] for product in PRODUCTS}
    choices["qkv"] = replace(choices["qkv"], shared="onednn-packed")
    choices["ffn_input"] = replace(choices["ffn_input"], shared="torch")
    monkeypatch.setattr(shared, "choices", choices)

    shared.warm_up()

    assert rows["qkv"] == [*range(16, 257, 16)]
    assert rows["ffn_input"] == []
