"""What a user chooses of devices: this machine's cores, or a CUDA device that must be there.

Without torch until a device is opened: settings and command lines know the choices.
"""

import importlib.util
import re
from typing import TYPE_CHECKING, Literal

from workers.errors import DeviceUnavailableError
from workers.precision import Precision, PrecisionChoice

if TYPE_CHECKING:
    import torch

DEVICE_CHOICE = r"(cpu|cuda(:\d+)?)"
"""`cpu`, `cuda` (the first) or `cuda:N`."""

OperatorUnit = Literal["grouped", "per-task"]
"""What is launched as one operator on a device: those of all tasks of a batch, or PetS's, of one
task."""


def open_device(choice: str, precision: PrecisionChoice) -> "torch.device | None":
    """Return the device that was chosen; None: the cores of this machine.

    Args:
        choice: As `DEVICE_CHOICE` has it.
        precision: What is to be computed in.

    Raises:
        DeviceUnavailableError: If there is no such device here, or what its kernels need is
            missing.
    """
    if choice == "cpu":
        return None
    if not re.fullmatch(DEVICE_CHOICE, choice):
        raise DeviceUnavailableError(f"no device {choice!r}: expected cpu, cuda or cuda:N")
    import torch

    if not torch.cuda.is_available():
        raise DeviceUnavailableError(
            f"device {choice}: torch {torch.__version__} finds no CUDA device here; see what "
            "`nvidia-smi` says, or use --device cpu"
        )
    device = torch.device(choice if ":" in choice else "cuda:0")
    if device.index >= torch.cuda.device_count():
        raise DeviceUnavailableError(
            f"device {choice}: the last one here is cuda:{torch.cuda.device_count() - 1}"
        )
    if importlib.util.find_spec("cupy") is None:
        raise DeviceUnavailableError(
            f"device {choice}: CuPy, which compiles its kernels, is missing: "
            "pip install 'petstream[gpu]'"
        )
    with torch.cuda.device(device):
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" and not has_bfloat16:
        raise DeviceUnavailableError(
            f"device {choice}: {device_name(device)} does not compute in bfloat16; use --dtype "
            "float32"
        )
    return device


def device_name(device: "torch.device") -> str:
    """Return what the maker calls a device."""
    import torch

    return torch.cuda.get_device_name(device)


def precision_on_device(choice: PrecisionChoice) -> Precision:
    """Return what an engine on a device computes in, by what a user chose.

    `auto` is float32: tasks were compared with bfloat16 as cores compute in it, which rounds less.
    """
    return "float32" if choice == "auto" else choice
