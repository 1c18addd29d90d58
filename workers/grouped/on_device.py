"""Where and how the grouped pass runs."""

from dataclasses import dataclass

import torch

from gpu_ops.grouped.kernel_file import Kernels
from workers.device_choice import OperatorUnit

POOL_BYTES = 1 << 30
MAX_GRAPHS = 64


@dataclass(frozen=True, slots=True)
class OnDevice:
    """A device and how operators are launched on it."""

    device: torch.device
    """A CUDA device. On the CPU, where tests run it, the operators' references compute."""
    unit: OperatorUnit = "grouped"
    num_streams: int = 1
    """Over which operators that do not wait for each other are dealt by PetS's rule
    (`gpu_ops.grouped.operator_schedule`)."""
    pool_bytes: int = POOL_BYTES
    """For the weights of the tasks that ran last, as kernels read them."""
    max_graphs: int = MAX_GRAPHS
    """Of captured passes; 0: everything is launched kernel by kernel."""
    kernels: Kernels | None = None
    """Whose kernels; None: CUDA's on a CUDA device."""
