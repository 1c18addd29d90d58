from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch

from gpu_ops.grouped.bias_gelu import RowVectors
from gpu_ops.grouped.bottleneck import BottleneckPool, add_bottleneck_, bottleneck_work
from gpu_ops.grouped.low_rank import LowRankPool, add_low_rank_, low_rank_work
from gpu_ops.grouped.operator_schedule import Work, deal, intensity
from gpu_ops.grouped.scale import scale_, scale_work
from gpu_ops.grouped.segments import Segment, TileTable, row_slots, tile_entries
from gpu_ops.grouped.streams import Call, OperatorStreams
from gpu_ops.spans import Span
from tests.gpu_ops.grouped.backend import Backend, normal

ROWS, WIDTH = 32, 136
"""Of a task."""
DTYPE = torch.bfloat16
PAUSE_CYCLES = 5_000_000
"""Milliseconds: whoever does not wait for what is behind it is seen."""
Operator = Callable[[torch.Tensor, torch.Tensor], None]


def test_without_a_device_all_calls_run_in_turn() -> None:
    """The streams one after another."""
    done: list[int] = []
    calls: list[list[Call]] = [
        [partial(done.append, i) for i in part] for part in ([3, 1], [], [2])
    ]

    OperatorStreams(3, torch.device("cpu")).run(calls)

    assert done == [3, 1, 2]


def test_calls_for_other_streams_are_refused() -> None:
    """They would never run."""
    with pytest.raises(ValueError, match="calls for 2 streams, got 3"):
        OperatorStreams(2, torch.device("cpu")).run([[], [], []])


def operators(device: Backend) -> list[tuple[Work, Operator]]:
    """Return operators of three kinds, each on the rows of one of six tasks."""

    def pooled(*size: int, seed: int) -> torch.Tensor:
        return device.put(normal(1, *size, seed=seed, dtype=DTYPE, scale=0.1))

    low_rank = LowRankPool(pooled(8, WIDTH, seed=1), pooled(WIDTH, 8, seed=2))
    adapter = BottleneckPool(
        pooled(64, WIDTH, seed=3),
        pooled(64, seed=4),
        pooled(WIDTH, 64, seed=5),
        pooled(WIDTH, seed=6),
        device.put(torch.zeros(1, dtype=torch.int32)),
    )
    all_rows = [Segment(Span(0, ROWS), 0)]
    slots = device.put(row_slots(all_rows, ROWS))
    tiles = TileTable(device.put(tile_entries(all_rows, 16, capacity=2)), 16)
    scale = RowVectors(pooled(WIDTH, seed=7), slots)
    kinds: list[tuple[Work, Operator]] = [
        (
            low_rank_work([ROWS], WIDTH, WIDTH, 8, 1, 2),
            lambda y, x: add_low_rank_(y, x, low_rank, tiles),
        ),
        (bottleneck_work([ROWS], WIDTH, 64, 2), lambda y, _: add_bottleneck_(y, adapter, tiles)),
        (scale_work([ROWS], WIDTH, 2), lambda y, _: scale_(y, scale)),
    ]
    return [kinds[number % 3] for number in range(6)]


def forked_run(
    found: Sequence[tuple[Work, Operator]], num_streams: int, start: torch.Tensor
) -> Callable[[], torch.Tensor]:
    """Return a run that is late with what operators read, and with what they write."""
    streams = OperatorStreams(num_streams, start.device)
    y = torch.zeros_like(start)

    def late(run: Operator, task: int) -> None:
        torch.cuda._sleep(PAUSE_CYCLES)  # type: ignore[no-untyped-call]
        rows = slice(task * ROWS, (task + 1) * ROWS)
        run(y[rows], start[rows])

    def run() -> torch.Tensor:
        torch.cuda._sleep(PAUSE_CYCLES)  # type: ignore[no-untyped-call]
        y.copy_(start)
        calls = [partial(late, one, task) for task, (_, one) in enumerate(found)]
        streams.run(deal(calls, [intensity(work) for work, _ in found], num_streams))
        return y * 2

    return run


@pytest.mark.gpu
@pytest.mark.parametrize("num_streams", [2, 3, 8])
def test_streams_return_what_one_stream_returns(device: Backend, num_streams: int) -> None:
    """To the bit: the fork waits for the input, the join for the results; eight have some idle."""
    found = operators(device)
    start = device.put(normal(6 * ROWS, WIDTH, seed=0, dtype=DTYPE))
    expected = forked_run(found, 1, start)()

    assert forked_run(found, num_streams, start)().equal(expected)


@pytest.mark.gpu
@pytest.mark.parametrize("num_streams", [2, 3, 8])
def test_a_fork_is_captured_and_replayed(device: Backend, num_streams: int) -> None:
    """Twice, for other inputs."""
    found = operators(device)
    start = device.put(normal(6 * ROWS, WIDTH, seed=0, dtype=DTYPE))
    run = forked_run(found, num_streams, start)
    run()  # compiles, which a capture must not
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()

    for seed in (0, 1):
        start.copy_(normal(6 * ROWS, WIDTH, seed=seed, dtype=DTYPE))
        graph.replay()

        assert out.equal(forked_run(found, 1, start)())
