"""Passes captured once and replayed for other batches: the host launches one graph, not kernels.

From Python a launch takes longer than most kernels run, and a pass has hundreds. What a CUDA graph
launches is fixed, so batches are brought to sizes that recur (`pass_sizes`), and their tables of
tiles too, by empty ones. Two batches of the same sizes whose tasks need the same operators are then
one graph.

    first batch of a kind    launched kernel by kernel, by the same code
    second                   captured, and replayed
    from the third on        its states and tables are written over the captured ones, and replayed
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import torch

from workers.grouped.batch_plan import BatchPlan
from workers.grouped.packed_rows import PackedRows
from workers.packed_batch import PackedBatch
from workers.power_of_two import power_of_two


@dataclass(frozen=True, slots=True, eq=False)
class StaticPass:
    """One pass in which the host decides nothing while it runs."""

    hidden: torch.Tensor
    """Shape (sizes.num_tokens, hidden): what enters the first layer."""
    batch: PackedBatch
    rows: PackedRows
    plan: BatchPlan


RunLayers = Callable[[StaticPass], torch.Tensor]
"""Launches a pass and returns what leaves the last layer, shape (sizes.num_tokens, hidden)."""


class _CapturedPass:
    """A graph, and what it reads and writes; of the tasks of its batch it keeps nothing."""

    def __init__(self, pass_: StaticPass, run: RunLayers, memory: "_GraphMemory | None") -> None:
        self._plan = pass_.plan
        self._run = run
        self._graph: torch.cuda.CUDAGraph | None = None
        if memory is not None:
            self._graph, self._out = memory.capture(lambda: run(pass_))

    def replay(self, pass_: StaticPass) -> torch.Tensor:
        """Run it for a batch; what enters its first layer is in place already."""
        if pass_.plan is not self._plan:
            self._plan.tables.overwrite(pass_.plan.tables)
        if self._graph is None:
            return self._run(replace(pass_, plan=self._plan))
        self._graph.replay()
        return self._out


class _GraphMemory:
    """What the graphs of an encoder share: they run one at a time, so memory too."""

    def __init__(self, device: torch.device) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def capture(self, run: Callable[[], torch.Tensor]) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """Capture a run. Other threads may use the device meanwhile: tasks are copied to it."""
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            run()  # so that what libraries allocate once for a stream is not the graph's
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                out = run()
            finally:
                graph.capture_end()
        current.wait_stream(self._stream)
        return graph, out


class PassGraphs:
    """The graphs of one encoder. Used from one thread at a time."""

    def __init__(
        self, device: torch.device, dtype: torch.dtype, max_graphs: int, run: RunLayers
    ) -> None:
        """There are none yet.

        Args:
            device: A CUDA device. On the CPU, where tests run it, a replay runs the layers again.
            dtype: Of the states between layers.
            max_graphs: The one used longest ago is dropped for another.
            run: Launches a pass.
        """
        self._dtype = dtype
        self._max_graphs = max_graphs
        self._run = run
        self._memory = _GraphMemory(device) if device.type == "cuda" else None
        self._input: torch.Tensor | None = None
        self._graphs: OrderedDict[Hashable, _CapturedPass | None] = OrderedDict()
        """By what is launched; None: it was launched once, and not captured."""
        self.num_captures = 0
        self.num_replays = 0
        """Those of passes that were captured just before included."""

    def run(
        self, hidden: torch.Tensor, batch: PackedBatch, rows: PackedRows, plan: BatchPlan
    ) -> torch.Tensor:
        """Return the last layer's states of a batch, shape (num_tokens, hidden).

        The next run may write over them.

        Args:
            hidden: Shape (num_tokens, hidden): what enters the first layer.
            batch: Whose.
            rows: With sizes.
            plan: Of the same sizes.
        """
        assert rows.sizes is not None
        pass_ = StaticPass(self._entered(hidden, rows.sizes.num_tokens), batch, rows, plan)
        key = (rows.sizes, plan.launches, plan.tables.layout, pass_.hidden.data_ptr())
        is_known = key in self._graphs
        captured = self._graphs.pop(key, None)
        if captured is None:  # launched, not replayed from others' tables
            plan.tables.upload()
        if is_known and captured is None:
            captured = _CapturedPass(pass_, self._run, self._memory)
            self.num_captures += 1
        if captured is None:
            out = self._run(pass_)
        else:
            out = captured.replay(pass_)
            self.num_replays += 1
        self._graphs[key] = captured
        if len(self._graphs) > self._max_graphs:
            self._graphs.popitem(last=False)
        return out[: len(hidden)]

    def _entered(self, hidden: torch.Tensor, num_tokens: int) -> torch.Tensor:
        """Return the states where graphs read them: one place for all, as one runs at a time."""
        if self._input is None or len(self._input) < num_tokens:
            self._input = hidden.new_zeros(
                power_of_two(num_tokens), hidden.shape[1], dtype=self._dtype
            )
        self._input[: len(hidden)] = hidden
        return self._input[:num_tokens]
