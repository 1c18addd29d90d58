"""Names of activations in other libraries' configurations."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tasks.errors import KindUnsupported
from tasks.site_ops import Activation

_SAME: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_accurate": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_python_tanh": "gelu_new",
    "leakyrelu": "leaky_relu",
    "leaky_relu": "leaky_relu",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


def activation_of(name: str) -> Activation:
    """Return ours of a name in transformers' table, which other libraries fall back on.

    Raises:
        KindUnsupported: If we have none that computes the same.
    """
    found = _SAME.get(name.lower())
    if found is None:
        raise KindUnsupported(
            f"activation {name[:50]!r} has no counterpart: train again with one of "
            f"{', '.join(sorted(_SAME))}"
        )
    return found


def activate(activation: Activation, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the activation of each value."""
    return np.asarray(_FUNCTIONS[activation](x), np.float64)


def _gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return 0.5 * x * np.asarray(1 + erf(x / math.sqrt(2)), np.float64)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (1 + np.tanh(0.5 * x))


_FUNCTIONS: Mapping[Activation, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "gelu": _gelu,
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "leaky_relu": lambda x: np.where(x >= 0, x, 0.01 * x),
    "relu": lambda x: np.maximum(x, 0.0),
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "tanh": np.tanh,
}
