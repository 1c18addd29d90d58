"""Run as a program of its own: pickled tensors in, a safetensors file out, within limits.

Started by `tasks.importers.pickled_weights` and by nobody else. It imports nothing of ours, so
that Python's isolated mode can run it by its path. The limits are set once torch is loaded and
before the first byte of the pickle is read: torch's own libraries need far more address space than
any checkpoint should.

    python -I unpickle.py IN OUT MEMORY_BYTES CPU_SECONDS

Prints one JSON object: {"error": null, "skipped": [names that are no tensors]} or
{"error": "code" | "cost" | "damage", "message": why}.
"""

import ctypes
import json
import pickle
import resource
import sys
from pathlib import Path
from typing import Any

_MAX_TENSORS = 100_000
_MAX_NAME_LENGTH = 512
_MAX_MESSAGE_LENGTH = 300
_WRAPPERS = ("state_dict", "model_state_dict")
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


class _Refused(Exception):
    """What was unpickled is no flat mapping of tensors, or too large."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


def main() -> None:
    """Convert one file and say how it went."""
    source, target, memory_bytes, cpu_seconds = sys.argv[1:]
    import torch  # loaded before the limits

    _limit(int(memory_bytes), int(cpu_seconds))
    try:
        skipped = _convert(torch, Path(source), Path(target), int(memory_bytes))
        outcome: dict[str, object] = {"error": None, "skipped": skipped[:50]}
    except _Refused as refused:
        outcome = {"error": refused.error, "message": str(refused)}
    except MemoryError:
        outcome = {"error": "cost", "message": "out of memory"}
    except pickle.UnpicklingError as error:
        outcome = {"error": _kind_of(str(error)), "message": _first_words(error)}
    except Exception as error:  # noqa: BLE001 - damaged bytes raise whatever they like
        is_memory = "alloc" in str(error) or "mmap" in str(error)
        outcome = {"error": "cost" if is_memory else "damage", "message": _first_words(error)}
    print(json.dumps(outcome))  # noqa: T201 - the parent reads it


def _limit(memory_bytes: int, cpu_seconds: int) -> None:
    """Bound what this process may take from now on; without a network where the kernel allows."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    used = resource.getrusage(resource.RUSAGE_SELF)
    limits = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + memory_bytes,
        resource.RLIMIT_CPU: int(used.ru_utime + used.ru_stime) + 1 + cpu_seconds,
        resource.RLIMIT_FSIZE: memory_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
    # Refused in some containers; nothing that is loaded here asks for a network anyway.
    ctypes.CDLL(None).unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _convert(torch, source: Path, target: Path, max_bytes: int) -> list[str]:  # type: ignore[no-untyped-def]  # noqa: ANN001 - the module
    import safetensors.torch

    found = torch.load(source, map_location="cpu", weights_only=True)
    for wrapper in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict):
        raise _Refused("damage", f"holds a {type(found).__name__}, not tensors by name")
    tensors: dict[str, Any] = {}
    skipped, num_bytes = [], 0
    for name, value in found.items():
        if type(name) is not str or len(name) > _MAX_NAME_LENGTH:
            raise _Refused("damage", "a tensor's name is no short text")
        if not isinstance(value, torch.Tensor):
            skipped.append(name)
            continue
        if value.layout is not torch.strided or value.is_quantized or value.is_complex():
            raise _Refused("damage", f"{name} is no plain tensor of numbers")
        # A tensor may repeat few stored numbers without end (strides of 0).
        num_bytes += value.numel() * value.element_size()
        if num_bytes > max_bytes or len(tensors) >= _MAX_TENSORS:
            raise _Refused("cost", f"its tensors take more than {max_bytes} bytes")
        tensors[name] = value
    # Cloned: safetensors refuses tensors that share memory, and some libraries save such.
    copies = {name: value.detach().clone(memory_format=torch.contiguous_format)
              for name, value in tensors.items()}  # fmt: skip
    safetensors.torch.save_file(copies, target)
    return skipped


def _kind_of(message: str) -> str:
    return "code" if "GLOBAL" in message or "Unsupported class" in message else "damage"


def _first_words(error: Exception) -> str:
    """Return what is wrong, without torch's advice to load the file in ways that run its code."""
    paragraphs = (str(error) or type(error).__name__).split("\n\n")
    telling = [text for text in paragraphs if "GLOBAL" in text or text.startswith("Unsupported")]
    return " ".join((telling or paragraphs)[0].split())[:_MAX_MESSAGE_LENGTH]


if __name__ == "__main__":
    main()
