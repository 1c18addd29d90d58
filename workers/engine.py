"""The packed engine: rows of any tasks in, their logits (of embeddings: vectors) out.

Rows are cut into slices that threads run side by side, each on one core. Threads inside a matrix
product would meet some forty times a layer, and on a machine that does other work as well each
meeting waits for whoever lost its core; slices meet once.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.description import TaskDescription
from tasks.process_tuning import tune_process
from tasks.site_ops import PetWeights
from workers.backbone import Backbone
from workers.cores import available_cores
from workers.encoder import Encoder
from workers.errors import DeviceUnavailableError
from workers.grouped.encoder import GroupedEncoder
from workers.grouped.on_device import OnDevice
from workers.loaded_task import LoadedTask
from workers.machine_figures import MachineFigures
from workers.merged_weights import MergedWeights
from workers.packed_batch import (
    EngineRow,
    check_rows,
    execution_order,
    pack,
    tasks_of,
)
from workers.precision import Precision
from workers.row_outputs import row_outputs
from workers.slicing import cut_into_slices
from workers.task_ops import build_task_ops

__all__ = ["Engine", "EngineRow"]

MAX_SLICE_TOKENS: Mapping[Precision, int] = {"float32": 1024, "bfloat16": 2048}
"""Activations of a slice then stay in the processor's cache (measured: 10 % at float32)."""
MIN_SLICE_TOKENS = 32
"""A slice costs its thread some milliseconds beside its tokens: two of 16 tokens take half as much
processor time again as one of 32, and end no sooner (docs/log.md)."""
MAX_PASS_TOKENS = 16384
"""Of a pass on a device: a product of so many rows keeps it busy, and activations stay small."""


class Engine:
    """Runs rows over one backbone. `run` may be called from several threads."""

    def __init__(
        self,
        backbone: Backbone,
        threads: int | None = None,
        *,
        precisions: Sequence[Precision] = ("float32",),
        figures_file: Path | None = None,
        merged_bytes: int = 0,
        on_device: OnDevice | None = None,
    ) -> None:
        """Choose the back ends, measuring what was not measured yet, and start the compute threads.

        Args:
            backbone: The shared weights.
            threads: How many cores to use; None is every core this process may run on.
            precisions: What rows can be computed in, at least one; each takes weights of its own.
            figures_file: Where this machine's figures are kept. None: they are measured anew.
            merged_bytes: Memory for weights with the sparse changes in them that are used most.
            on_device: Where, and how, if not on the cores of this machine. Tasks must be there
                (`TaskManager` with that device), and the arguments above but `precisions` say
                nothing then.

        Raises:
            BackboneUnsupportedError: If the device's kernels cannot run the backbone.
        """
        tune_process()
        self.backbone = backbone
        self._on_device = on_device
        self.device = torch.device("cpu") if on_device is None else on_device.device
        self.num_threads = 1 if on_device is not None else threads or available_cores()
        self._pool = ThreadPoolExecutor(self.num_threads, thread_name_prefix="engine")
        self._num_running = 0
        """Calls of `run`."""
        self._num_waiting = 0
        """Slices that no thread has begun."""
        self._has_begun = threading.Condition()
        figures = MachineFigures(figures_file)
        self.merged = MergedWeights(merged_bytes)
        try:
            self.encoders: Mapping[Precision, Encoder | GroupedEncoder] = {
                precision: self._pool.submit(self._build_encoder, precision, figures).result()
                for precision in precisions
            }
        finally:
            figures.save()

    def run(self, rows: Sequence[EngineRow]) -> list[NDArray[np.float32]]:
        """Return the logits of each row, in the order of the rows.

        A row's logits do not depend on which rows it is run with, but for float32 rounding.

        Args:
            rows: Of tasks loaded for this backbone.

        Returns:
            Per row: shape (num_outputs,), of tagging tasks (num_tokens, num_outputs). Vectors of
            embeddings are not normalised yet (`workers.answers`).

        Raises:
            RowError: If a row cannot be run; no row was run then.
        """
        if not rows:
            return []
        check_rows(rows, self.backbone.shape)
        for task in tasks_of(rows).values():
            if task.backbone_digest != self.backbone.digest:
                raise ValueError(
                    f"task {task.description.name} was loaded for another backbone than "
                    f"{self.backbone.name}"
                )
            if task.precision not in self.encoders:
                raise ValueError(
                    f"task {task.description.name} was loaded for {task.precision}, this "
                    f"engine computes in {', '.join(self.encoders)}"
                )
        logits: dict[int, NDArray[np.float32]] = {}
        with self._share_of_threads() as num_threads:
            for part in self._outputs_of(rows, self._slices(rows, num_threads)):
                logits.update(part)
        return [logits[number] for number in range(len(rows))]

    def wait_for_turn(self) -> None:
        """Wait until all that was given to `run` so far has begun: what is given now comes next."""
        with self._has_begun:
            self._has_begun.wait_for(lambda: self._num_waiting == 0)

    def precision_of(self, *, passes_bfloat16: bool) -> Precision:
        """Return what a task's rows are best computed in.

        Args:
            passes_bfloat16: Whether bfloat16 was found to give the task's answers. It is then
                taken where it was measured to be faster here; without float32 it always is.
        """
        if "float32" not in self.encoders:
            return "bfloat16"
        bfloat16 = self.encoders.get("bfloat16")
        is_faster = bfloat16 is not None and (
            bfloat16.us_per_row < self.encoders["float32"].us_per_row
        )
        return "bfloat16" if passes_bfloat16 and is_faster else "float32"

    def load_task(
        self,
        description: TaskDescription,
        level: int,
        weights: PetWeights,
        precision: Precision | None = None,
    ) -> LoadedTask:
        """Lay a task's validated weights out for this engine.

        Args:
            description: The task.
            level: Which level of it.
            weights: Of that level.
            precision: What its rows are computed in. None: the engine's first.

        Raises:
            LevelNotFound: If the task has no such level.
            TaskUnsupportedError: If an op stands where the engine has no place for it.
        """
        # Of this thread: the engine's threads have rows to run meanwhile.
        torch.set_num_threads(1)
        taken: Precision = next(iter(self.encoders)) if precision is None else precision
        ops = self.encoders[taken].prepared(build_task_ops(weights, self.backbone))
        described = description.level(level)
        return LoadedTask(description, described, ops, self.backbone.digest, taken)

    def check_device(self) -> None:
        """Find out whether a pass failed because its device no longer computes.

        Raises:
            DeviceUnavailableError: If it does not. Nothing on it can be used again by this process.
        """
        if self.device.type == "cpu":
            return
        try:
            torch.ones(1, device=self.device).add_(1).cpu()
        except RuntimeError as error:
            raise DeviceUnavailableError(
                f"device {self.device} no longer computes: {error}; start the process again"
            ) from error

    def close(self) -> None:
        """Stop the compute threads."""
        self._pool.shutdown()

    def _build_encoder(
        self, precision: Precision, figures: MachineFigures
    ) -> Encoder | GroupedEncoder:
        torch.set_num_threads(1)
        with torch.inference_mode():
            if self._on_device is not None:
                return GroupedEncoder(self.backbone, precision, self._on_device)
            encoder = Encoder(self.backbone, precision, figures, self.merged)
            encoder.warm_up()
            return encoder

    @contextmanager
    def _share_of_threads(self) -> Iterator[int]:
        """Give a run as many threads as are its share beside those that run already.

        Slices for all of them would wait for one another, and each costs its thread some time.
        """
        with self._has_begun:
            self._num_running += 1
            num_threads = max(1, self.num_threads // self._num_running)
        try:
            yield num_threads
        finally:
            with self._has_begun:
                self._num_running -= 1

    def _slices(self, rows: Sequence[EngineRow], num_threads: int) -> list[list[int]]:
        order = execution_order(rows)
        slices: list[list[int]] = []
        for precision in self.encoders:
            of_precision = [n for n in order if rows[n].task.precision == precision]
            lens = [len(rows[number].token_ids) for number in of_precision]
            max_tokens = MAX_SLICE_TOKENS[precision] if self._on_device is None else MAX_PASS_TOKENS
            slices += [
                [of_precision[position] for position in positions]
                for positions in cut_into_slices(lens, num_threads, max_tokens, MIN_SLICE_TOKENS)
            ]
        return slices

    def _outputs_of(
        self, rows: Sequence[EngineRow], slices: Sequence[Sequence[int]]
    ) -> Iterator[dict[int, NDArray[np.float32]]]:
        """Run slices on the threads of the pool; where one fails, those not begun are left out."""
        with self._has_begun:
            futures = [self._pool.submit(self._run_slice, rows, numbers) for numbers in slices]
            self._num_waiting += len(futures)
        try:
            for future in futures:
                yield future.result()
        finally:
            self._no_longer_wait(sum(future.cancel() for future in futures))

    def _no_longer_wait(self, num_slices: int) -> None:
        with self._has_begun:
            self._num_waiting -= num_slices
            self._has_begun.notify_all()

    def _run_slice(
        self, rows: Sequence[EngineRow], numbers: Sequence[int]
    ) -> dict[int, NDArray[np.float32]]:
        self._no_longer_wait(1)
        # Of this thread and, in torch, of the process: set each time, as other code may set it too.
        torch.set_num_threads(1)
        with torch.inference_mode():
            batch = pack(rows, numbers, self.backbone.shape, self.backbone.num_token_types)
            encoder = self.encoders[rows[numbers[0]].task.precision]
            return row_outputs(encoder.encode(batch), encoder.head)
