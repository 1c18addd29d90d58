"""The bytes of a `level-<n>.safetensors` and the tensors in them; trusts nothing of the bytes.

safetensors itself refuses what is not well formed (overlaps, gaps, lengths that do not add up).
Beyond it, this module bounds the header, refuses doubled names, and checks names, element types,
shapes and values against what a PET kind calls for.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from tasks.errors import BadWeightFile, NonFiniteWeights, TensorTypeMismatch
from tasks.pets.pet import TensorSpec, check_names, check_shape

# A tensor's header entry takes about 120 bytes: room for more than 8,000 tensors.
MAX_HEADER_BYTES = 1 << 20
_LENGTH_BYTES = 8

_DTYPES = {"F16": "float16", "F32": "float32", "U8": "uint8"}


def max_file_bytes(specs: Mapping[str, TensorSpec]) -> int:
    """Return the size of the largest file with these tensors."""
    return _LENGTH_BYTES + MAX_HEADER_BYTES + sum(spec.max_bytes for spec in specs.values())


def to_bytes(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the file's bytes; equal tensors give equal bytes."""
    return safetensors.numpy.save(dict(tensors))


def parse_tensors(raw: bytes, specs: Mapping[str, TensorSpec], source: str) -> dict[str, Any]:
    """Parse the file and check its tensors.

    Args:
        raw: The whole file.
        specs: What the tensors must be.
        source: The file's name, for messages.

    Returns:
        Read-only numpy arrays by name, exactly those of `specs`, all finite.

    Raises:
        BadWeightFile: If the bytes are not well-formed safetensors.
        TensorMismatch: If the tensors are not those of `specs`.
        NonFiniteWeights: If a value is NaN or infinite.
    """
    _check_header(raw, source)
    try:
        entries = dict(safetensors.deserialize(raw))  # type: ignore[no-untyped-call]  # in Rust
    except safetensors.SafetensorError as error:
        raise BadWeightFile(
            f"{source} is not well-formed safetensors ({error}): write the artifact again"
        ) from error
    check_names(entries, specs)
    tensors = {}
    for name, spec in specs.items():
        entry = entries[name]
        dtype = _DTYPES.get(entry["dtype"])
        if dtype not in spec.dtypes:
            raise TensorTypeMismatch(
                f"{name} is {entry['dtype']}, expected {' or '.join(spec.dtypes)}: convert it"
            )
        check_shape(name, tuple(entry["shape"]), spec)
        values = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
        if dtype != "uint8" and not np.isfinite(values).all():
            raise NonFiniteWeights(f"{name} holds NaN or infinity: train the task again")
        tensors[name] = values
    return tensors


def _check_header(raw: bytes, source: str) -> None:
    length = int.from_bytes(raw[:_LENGTH_BYTES], "little")
    if len(raw) < _LENGTH_BYTES or not 2 <= length <= len(raw) - _LENGTH_BYTES:
        raise BadWeightFile(
            f"{source} is not safetensors: its header does not fit in its {len(raw)} bytes "
            f"(truncated, or a pickle by another name)"
        )
    if length > MAX_HEADER_BYTES:
        raise BadWeightFile(f"{source} has a header of {length} bytes, at most {MAX_HEADER_BYTES}")
    try:
        json.loads(raw[_LENGTH_BYTES : _LENGTH_BYTES + length], object_pairs_hook=_refuse_doubles)
    except (ValueError, RecursionError) as error:
        raise BadWeightFile(f"{source} has a damaged header ({error})") from error


def _refuse_doubles(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError("a name stands there twice")
