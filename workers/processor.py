"""What this machine's processor is, and can."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Vendor = Literal["AMD", "Intel"]

_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Of x86 processors; the last one of ARM's."""


@dataclass(frozen=True, slots=True)
class Processor:
    """As `/proc/cpuinfo` tells it."""

    name: str
    vendor: Vendor
    """Whose goals hold. On Intel the peers' products are as fast as ours, so less is promised;
    anything that is not Intel's has the higher goals, which were set on AMD."""
    has_bfloat16: bool
    """Whether it multiplies bfloat16 itself."""


def this_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Processor:
    """Read it; without that file it is one without bfloat16."""
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    lines = text.splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    words = set(text.split())
    return Processor(
        name=names[0] if names else platform.processor() or platform.machine(),
        vendor="Intel" if "GenuineIntel" in words else "AMD",
        has_bfloat16=bool(words & _BFLOAT16_FLAGS),
    )
