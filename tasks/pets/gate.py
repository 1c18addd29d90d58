"""The gates of UniPELT's parts: tensors and decoding."""

from tasks.pets.pet import Tensors, TensorSpec, to_float32
from tasks.site_ops import Gate


def gate_specs(prefix: str, num_in: int) -> dict[str, TensorSpec]:
    """Return `<prefix>_gate.weight` [in] and `<prefix>_gate.bias` [1]."""
    return {
        f"{prefix}_gate.weight": TensorSpec((num_in,)),
        f"{prefix}_gate.bias": TensorSpec((1,)),
    }


def decode_gate(prefix: str, tensors: Tensors) -> Gate:
    """Return the gate whose tensors begin with `prefix`."""
    return Gate(
        weight=to_float32(tensors[f"{prefix}_gate.weight"]),
        bias=to_float32(tensors[f"{prefix}_gate.bias"]),
    )
