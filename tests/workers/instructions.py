"""Counts the instructions that the engine takes for rows of each PET kind and of none.

Prints them as JSON; `test_engine_instructions` runs it in a process of its own.
"""

import ctypes
import errno
import json
import os
import platform
import struct
import sys
from pathlib import Path

import numpy as np

_SYSCALLS = {"x86_64": 298, "aarch64": 241}
_HARDWARE, _INSTRUCTIONS = 0, 1
_INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6
NO_COUNTER = 3
"""Exit status where the processor's counter cannot be read: a virtual machine may hide it."""

NUM_TASKS = 4
ROWS_PER_TASK = 2
ROW_LEN = 32


class _Attributes(ctypes.Structure):
    """`perf_event_attr` of linux/perf_event.h, as far as it is used here."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("unused", ctypes.c_uint8 * 80),
    )


class InstructionCounter:
    """Instructions of this process's user code, of threads started from now on too."""

    def __init__(self) -> None:
        """Start counting.

        Raises:
            OSError: If the system has no such counter for us.
        """
        attributes = _Attributes(type=_HARDWARE, config=_INSTRUCTIONS)
        attributes.size = ctypes.sizeof(_Attributes)
        attributes.flags = _INHERIT | _EXCLUDE_KERNEL | _EXCLUDE_HYPERVISOR
        number = _SYSCALLS.get(platform.machine())
        if number is None or not sys.platform.startswith("linux"):
            raise OSError(errno.ENOSYS, "no counter is known for this machine")
        libc = ctypes.CDLL(None, use_errno=True)
        self._file = libc.syscall(number, ctypes.byref(attributes), 0, -1, -1, 0)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "perf_event_open")

    def read(self) -> int:
        """Return the count so far."""
        (count,) = struct.unpack("q", os.read(self._file, 8))
        return int(count)


def main(backbone: Path) -> None:
    """Count and print."""
    try:
        counter = InstructionCounter()
    except OSError:
        sys.exit(NO_COUNTER)
    # Behind the counter, which follows only threads that start after it.
    from workers.backbone import Backbone
    from workers.engine import Engine, EngineRow
    from workers.profiler import PROFILED_PETS, load_random_task

    engine = Engine(Backbone.load(backbone), threads=1)
    ids = np.random.default_rng(0).integers(1000, 30000, (NUM_TASKS, ROWS_PER_TASK, ROW_LEN))
    counts: dict[str, int] = {}
    for name, pet in {"bare": None, **{pet.kind: pet for pet in PROFILED_PETS}}.items():
        tasks = [load_random_task(engine, pet, seed=seed) for seed in range(NUM_TASKS)]
        rows = [
            EngineRow(task, row)
            for task, of_task in zip(tasks, ids, strict=True)
            for row in of_task
        ]
        engine.run(rows)  # builds kernels
        before = counter.read()
        engine.run(rows)
        counts[name] = counter.read() - before
    engine.close()
    print(json.dumps(counts))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
