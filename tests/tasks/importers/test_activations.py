"""Activations by other libraries' names compute what those libraries compute."""

import numpy as np
import pytest
import torch
from transformers.activations import ACT2FN

from tasks.errors import KindUnsupported
from tasks.importers.activations import activate, activation_of

X = np.linspace(-6, 6, 97)


@pytest.mark.parametrize("name", sorted(ACT2FN))
def test_each_name_of_transformers_is_the_same_function_or_refused(name: str) -> None:
    """Whatever is in its table, on values of both signs."""
    try:
        ours = activate(activation_of(name), X)
    except KindUnsupported as error:
        assert f"{name!r} has no counterpart" in str(error)  # noqa: PT017 - one of two outcomes
        return

    theirs = ACT2FN[name](torch.from_numpy(X)).numpy()

    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_those_that_adapters_use_are_known() -> None:
    """So that the test above does not pass by refusing."""
    names = ("gelu", "gelu_new", "leakyrelu", "ReLU", "sigmoid", "silu", "swish", "tanh")

    assert [activation_of(name) for name in names] == [
        "gelu", "gelu_new", "leaky_relu", "relu", "sigmoid", "silu", "silu", "tanh",
    ]  # fmt: skip
