"""Copies of loaded tasks in a device's memory, and host memory that a device reads quickly."""

from collections.abc import Callable
from dataclasses import replace

import torch

from workers.backbone import Backbone, shared_tensors
from workers.loaded_task import LoadedTask
from workers.task_tensors import replaced


class DeviceCopies:
    """Copies tasks that were laid out for one backbone in host memory.

    Args:
        backbone: In host memory.
        device: Where the copies lie. The CPU counts as a device with a memory of its own.
    """

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        self._device = device
        # A task whose head reads the backbone's pooler shares it on the device, too.
        self._shared = {id(tensor): _copied(tensor, device) for tensor in shared_tensors(backbone)}

    def staged(self, task: LoadedTask) -> LoadedTask:
        """Return the task in page-locked memory where the device is a GPU, else as it is."""
        if self._device.type != "cuda":
            return task
        return _with_tensors(task, lambda t: t if id(t) in self._shared else t.pin_memory())

    def of(self, task: LoadedTask) -> LoadedTask:
        """Return a copy of the task on the device, there when this returns."""

        def copy(tensor: torch.Tensor) -> torch.Tensor:
            shared = self._shared.get(id(tensor))
            return _copied(tensor, self._device) if shared is None else shared

        copied = _with_tensors(task, copy)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        return copied


def _copied(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return torch.empty_like(tensor, device=device).copy_(tensor, non_blocking=True)


def _with_tensors(task: LoadedTask, change: Callable[[torch.Tensor], torch.Tensor]) -> LoadedTask:
    return replace(task, ops=replaced(task.ops, change))
