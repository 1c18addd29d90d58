"""A device that is not there is told with what to do, before anything else is tried."""

import importlib.util
from contextlib import nullcontext

import pytest
import torch

from workers.device_choice import open_device, precision_on_device
from workers.errors import DeviceUnavailableError
from workers.precision import PrecisionChoice


def test_the_cores_are_no_device() -> None:
    """They need nothing."""
    assert open_device("cpu", "auto") is None


@pytest.mark.parametrize("choice", ["gpu", "cuda:", "cuda:x", "CUDA", "cuda:0\n", ""])
def test_a_misspelt_choice_names_those_there_are(choice: str) -> None:
    """Settings check it too; a caller of ours may not have."""
    with pytest.raises(DeviceUnavailableError, match="expected cpu, cuda or cuda:N"):
        open_device(choice, "auto")


def test_without_a_cuda_device_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to look at."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(DeviceUnavailableError, match=r"finds no CUDA device.*--device cpu"):
        open_device("cuda", "auto")


def test_a_device_past_the_last_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the last one's name."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    with pytest.raises(DeviceUnavailableError, match=r"cuda:2: the last one here is cuda:1"):
        open_device("cuda:2", "auto")


def test_without_cupy_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch finds the device, but nothing compiles the kernels."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(DeviceUnavailableError, match=r"petstream\[gpu\]"):
        open_device("cuda", "auto")


@pytest.mark.parametrize(("precision", "is_opened"), [("auto", True), ("bfloat16", False)])
def test_a_device_without_bfloat16_is_refused_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, precision: PrecisionChoice, is_opened: bool
) -> None:
    """Its kernels would not compile; in float32 it computes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "an old one")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())

    if is_opened:
        assert open_device("cuda", precision) == torch.device("cuda:0")
    else:
        with pytest.raises(DeviceUnavailableError, match=r"an old one .*--dtype float32"):
            open_device("cuda", precision)


def test_bfloat16_on_a_device_is_for_the_user_to_choose() -> None:
    """Tasks were compared on cores, which round less."""
    assert precision_on_device("auto") == "float32"
    assert precision_on_device("bfloat16") == "bfloat16"
