"""Runs operators side by side, on CUDA streams that fork from the current one and join it again."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain

import torch

Call = Callable[[], None]
"""Launches an operator on the current stream."""


class OperatorStreams:
    """The current stream and others beside it; on the CPU operators run one after another.

    PetS's code waits on the host before and after each place's operators. Here streams wait for
    events, and the host for nothing, so all of it can be captured in a CUDA graph.
    """

    def __init__(self, num_streams: int, device: torch.device) -> None:
        """Make the streams.

        Args:
            num_streams: The current one included; 1 is the plain order.
            device: Where the operators' tensors are.
        """
        self.num_streams = num_streams
        self._device = device
        self._others: list[torch.cuda.Stream] = []
        if device.type == "cuda":
            self._others = [_stream(device, number) for number in range(num_streams - 1)]

    def run(self, calls: Sequence[Sequence[Call]]) -> None:
        """Run the calls of each stream in turn, the streams side by side.

        They see all that the current stream was given before, and what it is given next waits for
        them. A call frees what it allocates, which is memory of the stream that it runs on; results
        go to tensors made before.

        Args:
            calls: Per stream, as `operator_schedule.deal` returns them; the current stream runs the
                first. Those of different streams must not write what others read or write.

        Raises:
            ValueError: If there are calls for more or fewer streams.
        """
        if len(calls) != self.num_streams:
            raise ValueError(f"expected calls for {self.num_streams} streams, got {len(calls)}")
        if self._device.type != "cuda":
            _run(chain.from_iterable(calls))
            return
        current = torch.cuda.current_stream(self._device)
        beside = [(s, own) for s, own in zip(self._others, calls[1:], strict=True) if own]
        if beside:
            start = current.record_event()
            for stream, _ in beside:
                stream.wait_event(start)
        for stream, own in beside:
            with torch.cuda.stream(stream):
                _run(own)
        _run(calls[0])
        for stream, _ in beside:
            current.wait_event(stream.record_event())


@cache
def _stream(device: torch.device, number: int) -> torch.cuda.Stream:
    """Return a stream, each time the same: torch has 32, and hands out old ones as new."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _run(calls: Iterable[Call]) -> None:
    for call in calls:
        call()
