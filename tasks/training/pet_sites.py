"""Differentiable PET sites: the unified representation of `tasks.site_ops`, with gradients.

A site wraps one frozen module of the backbone. Every op is optional and absent at first; a fresh
op changes nothing, so that training starts at the backbone itself.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.site_ops import Activation


class Bottleneck(nn.Module):
    """h + up(activation(down(h))); starts as the identity because `up` starts at 0."""

    def __init__(self, hidden_size: int, bottleneck: int, activation: Activation) -> None:
        super().__init__()
        self.down = nn.Linear(hidden_size, bottleneck)
        self.up = nn.Linear(bottleneck, hidden_size)
        self.activation = functional.gelu if activation == "gelu" else functional.relu
        nn.init.normal_(self.down.weight, std=hidden_size**-0.5)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Apply to `hidden`, shape (..., hidden_size)."""
        change: Tensor = self.up(self.activation(self.down(hidden)))
        return hidden + change


class PetLinear(nn.Module):
    """y = output_scale * ((x * input_scale) change(W)^T + b + bias + scale * (x a^T) b^T)."""

    weight: Tensor
    shared_bias: Tensor

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"expected a Linear, got {type(base).__name__}")
        self.register_buffer("weight", base.weight.detach(), persistent=False)
        self.register_buffer("shared_bias", base.bias.detach(), persistent=False)
        self.bias: nn.Parameter | None = None
        self.lora_a: nn.Parameter | None = None
        self.lora_b: nn.Parameter | None = None
        self.lora_scale = 1.0
        self.input_scale: nn.Parameter | None = None
        self.output_scale: nn.Parameter | None = None
        self.weight_change: nn.Module | None = None
        self.adapter: nn.Module | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `inputs`, shape (..., in), to shape (..., out)."""
        if self.input_scale is not None:
            inputs = inputs * self.input_scale
        weight = self.weight if self.weight_change is None else self.weight_change(self.weight)
        bias = self.shared_bias if self.bias is None else self.shared_bias + self.bias
        outputs = functional.linear(inputs, weight, bias)
        if self.lora_a is not None and self.lora_b is not None:
            low = functional.linear(inputs, self.lora_a)
            outputs = outputs + self.lora_scale * functional.linear(low, self.lora_b)
        if self.output_scale is not None:
            outputs = outputs * self.output_scale
        if self.adapter is not None:
            outputs = self.adapter(outputs)
        return outputs


class PetNorm(nn.Module):
    """LayerNorm with gamma + weight and beta + bias."""

    shared_weight: Tensor
    shared_bias: Tensor

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        if not isinstance(base, nn.LayerNorm):
            raise TypeError(f"expected a LayerNorm, got {type(base).__name__}")
        self.register_buffer("shared_weight", base.weight.detach(), persistent=False)
        self.register_buffer("shared_bias", base.bias.detach(), persistent=False)
        self.epsilon = base.eps
        self.weight: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise `hidden`, shape (..., hidden_size)."""
        gamma = self.shared_weight if self.weight is None else self.shared_weight + self.weight
        beta = self.shared_bias if self.bias is None else self.shared_bias + self.bias
        return functional.layer_norm(hidden, gamma.shape, gamma, beta, self.epsilon)


def zeros(*shape: int) -> nn.Parameter:
    """Return a trainable tensor of zeros."""
    return nn.Parameter(torch.zeros(shape))


def ones(*shape: int) -> nn.Parameter:
    """Return a trainable tensor of ones."""
    return nn.Parameter(torch.ones(shape))
