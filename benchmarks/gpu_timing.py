"""How ways to compute the same on a CUDA device are compared, and timed in turn."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

MAX_ERROR = 0.05
"""Of the norm of the difference over the norm, after twelve layers in bfloat16."""
WARM_UPS = 3
Way = Callable[[], object]


@dataclass(frozen=True, eq=False)
class Captured:
    """A CUDA graph of a way, and the way: what it holds is what the graph reads."""

    way: Way
    graph: torch.cuda.CUDAGraph

    def __call__(self) -> None:
        """Replay it."""
        self.graph.replay()


def captured(run: Way) -> Captured:
    """Capture `run`, which is run before, to compile its kernels."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return Captured(run, graph)


def medians_ms(ways: Mapping[str, Way], repeats: int) -> dict[str, float]:
    """Time each way `repeats` times, in turn, and return the medians."""
    for _ in range(WARM_UPS):
        for run in ways.values():
            run()
    times_ms: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            times_ms[name].append(time_ms(run))
    return {name: statistics.median(values) for name, values in times_ms.items()}


def time_ms(run: Way) -> float:
    """Time one run by events of the device."""
    start, end = _event(), _event()
    start.record()
    run()
    end.record()
    end.synchronize()
    elapsed_ms: float = start.elapsed_time(end)
    return elapsed_ms


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return how far apart two results are, relative to the second."""
    difference = torch.linalg.vector_norm(found.float() - expected.float())
    return float(difference / torch.linalg.vector_norm(expected.float()))


def compared(name: str, found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the error.

    Raises:
        AssertionError: If it is too large, or not a number.
    """
    distance = error(found, expected)
    if not distance <= MAX_ERROR:
        raise AssertionError(f"{name}: results differ by {distance}")
    return distance


def in_turn(ways: Sequence[Way]) -> Way:
    """Return one way that runs all of them."""

    def run() -> None:
        for way in ways:
            way()

    return run
