"""The activations between the feed-forward products, in place."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch.nn import functional as F

from workers.backbone_config import Activation

ACTIVATION_OPS: Mapping[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": torch.ops.aten.gelu_,
    # Hendrycks and Gimpel 2016, the approximation by tanh.
    "gelu_tanh": partial(torch.ops.aten.gelu_, approximate="tanh"),
    "relu": torch.relu_,
    "silu": partial(F.silu, inplace=True),
}
"""Each changes its argument and returns it."""
