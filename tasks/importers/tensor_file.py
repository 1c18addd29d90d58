"""The tensors of somebody else's safetensors file, as float32; nothing of the bytes is trusted.

Unlike `tasks.weight_file`, which reads our own artifacts, this one does not know beforehand which
tensors there are. Names may be any, floats of every width are taken, integers stay what they are.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.errors import BadCheckpoint

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 8 << 20
_MAX_DIMENSIONS = 8

_FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
_INTEGERS = {"I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "<u1", "BOOL": "<u1"}
_ITEM_BYTES = {"BF16": 2} | {
    name: np.dtype(code).itemsize for name, code in (_FLOATS | _INTEGERS).items()
}


@dataclass(frozen=True, slots=True)
class _Entry:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile(Mapping[str, NDArray[Any]]):
    """Name -> tensor, converted each time it is asked for.

    Args:
        raw: The whole file, for as long as this object lives; bytes or a map of them.
        source: The file's name, for messages.

    Raises:
        BadCheckpoint: If it is not well-formed safetensors, or a tensor is of a type that is
            neither float nor integer.
    """

    def __init__(self, raw: Any, source: str) -> None:  # noqa: ANN401 - any readable buffer
        self._raw = memoryview(raw)
        self._source = source
        self._entries = _parse_header(self._raw, source)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return floats as float32 and integers as they are.

        Raises:
            KeyError: If there is no such tensor.
            BadCheckpoint: If a value is not finite, or too large for float32.
        """
        entry = self._entries[name]
        data = self._raw[entry.begin : entry.end]
        if entry.dtype in _INTEGERS:
            return np.frombuffer(data, _INTEGERS[entry.dtype]).reshape(entry.shape)
        if entry.dtype == "BF16":
            bits = np.frombuffer(data, "<u2").astype(np.uint32) << 16
            values = bits.view(np.float32)
        else:
            with np.errstate(over="ignore"):
                values = np.frombuffer(data, _FLOATS[entry.dtype]).astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise BadCheckpoint(
                f"{self._source}: {name} holds NaN, infinity or a value beyond float32: "
                f"train it again"
            )
        return values.reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        return self._entries[name].shape

    def dtype(self, name: str) -> str:
        """Return a tensor's element type as safetensors calls it."""
        return self._entries[name].dtype


def _parse_header(raw: memoryview, source: str) -> dict[str, _Entry]:
    length = int.from_bytes(raw[:_LENGTH_BYTES], "little")
    if len(raw) < _LENGTH_BYTES or not 2 <= length <= len(raw) - _LENGTH_BYTES:
        raise BadCheckpoint(
            f"{source} is not safetensors: its header does not fit in its {len(raw)} bytes "
            f"(cut off, or a pickle by another name)"
        )
    if length > _MAX_HEADER_BYTES:
        raise BadCheckpoint(f"{source} has a header of {length} bytes: save the weights again")
    begin = _LENGTH_BYTES + length
    try:
        header = json.loads(bytes(raw[_LENGTH_BYTES:begin]), object_pairs_hook=_without_doubles)
        if not isinstance(header, dict):
            raise ValueError("not an object")
        header.pop("__metadata__", None)
        entries = {name: _parse_entry(entry, begin) for name, entry in header.items()}
        _check_no_gap(entries, begin, len(raw))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadCheckpoint(f"{source} has a damaged header ({error}): copy it again") from error
    return entries


def _parse_entry(entry: Any, data_begin: int) -> _Entry:  # noqa: ANN401 - whatever JSON held
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _ITEM_BYTES:
        raise ValueError(f"element type {dtype!r}")
    numbers = (*shape, begin, end)
    if len(shape) > _MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("a dimension or an offset is not a small whole number")
    if prod(shape) * _ITEM_BYTES[dtype] != end - begin:
        raise ValueError("a tensor's shape and its bytes differ")
    return _Entry(dtype, tuple(shape), data_begin + begin, data_begin + end)


def _check_no_gap(entries: Mapping[str, _Entry], begin: int, end: int) -> None:
    position = begin
    for entry in sorted(entries.values(), key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != position:
            raise ValueError("tensors overlap or leave a gap")
        position = entry.end
    if position != end:
        raise ValueError("the file is longer or shorter than its tensors")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found
