"""A device that is not there is told with what to do, before anything else is tried."""

import importlib.util

import pytest
import torch

from workers.device_choice import open_device
from workers.errors import DeviceUnavailableError


def test_the_cores_are_no_device() -> None:
    """They need nothing."""
    assert open_device("cpu") is None


@pytest.mark.parametrize("choice", ["gpu", "cuda:", "cuda:x", "CUDA", "cuda:0\n", ""])
def test_a_misspelt_choice_names_those_there_are(choice: str) -> None:
    """Settings check it too; a caller of ours may not have."""
    with pytest.raises(DeviceUnavailableError, match="expected cpu, cuda or cuda:N"):
        open_device(choice)


def test_without_a_cuda_device_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to look at."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(DeviceUnavailableError, match=r"finds no CUDA device.*--device cpu"):
        open_device("cuda")


def test_a_device_past_the_last_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the last one's name."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    with pytest.raises(DeviceUnavailableError, match=r"cuda:2: the last one here is cuda:1"):
        open_device("cuda:2")


def test_without_cupy_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch finds the device, but nothing compiles the kernels."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(DeviceUnavailableError, match=r"petstream\[gpu\]"):
        open_device("cuda")
