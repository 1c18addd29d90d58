"""Reading a safetensors header and writing a safetensors file, with NumPy alone.

The format: 8 bytes little-endian header length, the header as JSON
(`{"name": {"dtype", "shape", "data_offsets"}}`), then the tensors' bytes. Writing it here keeps
the bytes of a converted backbone, and so its pinned digest, independent of any library version.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.errors import BackboneCorruptError

MAX_HEADER_BYTES = 16 * 1024 * 1024
"""A header of a million tensors; the format itself allows 100 MB."""


class TensorInfo(NamedTuple):
    """What the header says of one tensor."""

    dtype: str
    """As in the format: `F32`, `F16`, `BF16`, `I64`, ..."""
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Return name -> dtype and shape of every tensor, without reading the tensors.

    Raises:
        BackboneCorruptError: If the file is not safetensors.
    """
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {size} bytes")
            header = json.loads(file.read(size))
        return {
            name: TensorInfo(str(entry["dtype"]), tuple(int(dim) for dim in entry["shape"]))
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (struct.error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BackboneCorruptError(f"{path} is not a safetensors file: {error}") from error


def write_float32(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Write `tensors` in the order of their names; equal tensors give equal bytes."""
    header: dict[str, dict[str, object]] = {}
    offset = 0
    for name in sorted(tensors):
        array = tensors[name]
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)))
        file.write(encoded)
        for name in sorted(tensors):
            file.write(np.ascontiguousarray(tensors[name], dtype="<f4").tobytes())
