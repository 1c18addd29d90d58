"""The activations of adapters and of heads' hidden layers."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch.nn import functional as F

Activation = Literal["gelu", "gelu_new", "leaky_relu", "relu", "sigmoid", "silu", "tanh"]
"""`gelu` is the exact one, by the error function; `gelu_new` its tanh approximation; `leaky_relu`
has slope 0.01; `silu` is also called swish."""

ACTIVATIONS: Mapping[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": torch.ops.aten.gelu_,
    "gelu_new": lambda x: torch.ops.aten.gelu_(x, approximate="tanh"),
    "leaky_relu": lambda x: F.leaky_relu_(x, 0.01),
    "relu": torch.relu_,
    "sigmoid": torch.sigmoid_,
    "silu": lambda x: F.silu(x, inplace=True),
    "tanh": torch.tanh_,
}
"""Each changes its argument in place and returns it."""
