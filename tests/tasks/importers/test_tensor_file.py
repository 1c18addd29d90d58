"""Other people's safetensors: every float becomes float32, and nothing is trusted."""

import json
import struct
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import BadCheckpoint
from tasks.importers.tensor_file import TensorFile


def file_of(header: Any, data: bytes = b"") -> bytes:  # noqa: ANN401 - JSON
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_become_float32(dtype: torch.dtype) -> None:
    raw = safetensors.torch.save({"weight": torch.tensor([[1.5, -0.25]], dtype=dtype)})

    found = TensorFile(raw, "a")["weight"]

    assert found.dtype == np.float32
    assert found.tolist() == [[1.5, -0.25]]


def test_integers_stay_integers() -> None:
    raw = safetensors.numpy.save({"rows": np.array([3, -1], np.int64)})

    assert TensorFile(raw, "a")["rows"].tolist() == [3, -1]


_F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x80\x02",
        struct.pack("<Q", 1 << 63) + b"{}",
        file_of([]),
        file_of({"a": _F32}),
        file_of({"a": _F32}, b"\0" * 5),
        file_of({"a": _F32, "b": _F32}, b"\0" * 4),
        file_of({"a": _F32 | {"dtype": "F8_E4M3"}}, b"\0" * 4),
        file_of({"a": _F32 | {"shape": [-1]}}, b"\0" * 4),
        file_of({"a": _F32 | {"shape": [1 << 62, 4]}}, b"\0" * 4),
        file_of({"a": _F32 | {"shape": [True]}}, b"\0" * 4),
        file_of({"a": _F32 | {"data_offsets": [-4, 0]}}, b"\0" * 4),
        file_of({"a": _F32 | {"data_offsets": [1]}}, b"\0" * 4),
        file_of({"a": 3}),
        b'\x1a\0\0\0\0\0\0\0{"a": 1, "a": 2, "b": 1}  ',
    ],
)
def test_malformed_files_are_refused(raw: bytes) -> None:
    with pytest.raises(BadCheckpoint):
        TensorFile(raw, "a.safetensors")


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_read(raw: bytes) -> None:
    try:
        found = TensorFile(raw, "a.safetensors")
    except BadCheckpoint:
        return
    assert dict(found) is not None


@given(st.data())
def test_a_damaged_header_is_refused_or_read(data: st.DataObject) -> None:
    raw = bytearray(safetensors.numpy.save({"a": np.ones((2, 3), np.float32)}))
    position = data.draw(st.integers(0, len(raw) - 25))
    raw[position] = data.draw(st.integers(0, 255))

    try:
        found = TensorFile(bytes(raw), "a.safetensors")
        sizes = [tensor.size for tensor in found.values()]
    except BadCheckpoint:
        return
    assert sum(sizes) <= 24


def test_a_value_beyond_float32_is_refused() -> None:
    raw = safetensors.numpy.save({"a": np.array([1e300])})

    with pytest.raises(BadCheckpoint, match="beyond float32"):
        TensorFile(raw, "f.safetensors")["a"]
