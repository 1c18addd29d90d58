"""The weights of a BERT encoder out of an ONNX file, by the names BertModel gives them.

An export by `torch.onnx` keeps the names of biases, norms and embeddings, but stores every
linear weight transposed under a made-up name; the MatMul node that reads it tells which one it
is. Only the parts of ONNX's protobuf that hold weights are read (fields of ModelProto,
GraphProto, NodeProto and TensorProto), so that fetching a backbone needs no more than NumPy.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workers.errors import BackboneCorruptError

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT, _NODE_NAME, _NODE_OP_TYPE = 1, 3, 4
_TENSOR_DIMS, _TENSOR_DATA_TYPE, _TENSOR_NAME, _TENSOR_RAW_DATA = 1, 2, 8, 9
_FLOAT = 1

_LINEAR_NODE = re.compile(r"(encoder/layer\.\d+/(?:[a-z]+/)+)MatMul\Z")


def read_bert_weights(onnx_file: Path) -> dict[str, NDArray[np.float32]]:
    """Return the float32 weights of the BertModel within an exported graph.

    Args:
        onnx_file: An export with LayerNorm kept as an op (opset 17 or later).

    Returns:
        Name within BertModel (`encoder.layer.0.attention.self.query.weight`) -> array,
        linear weights as [out, in].

    Raises:
        BackboneCorruptError: If the file is no ONNX graph of float32 weights, or if a weight is
            read by nothing that tells its name.
    """
    raw = memoryview(onnx_file.read_bytes())
    try:
        graph = next(value for number, value in _fields(raw) if number == _MODEL_GRAPH)
        tensors: dict[str, NDArray[np.float32]] = {}
        names: dict[str, str] = {}
        for number, value in _fields(graph):
            if number == _GRAPH_INITIALIZER:
                name, array = _tensor(value)
                tensors[name] = array
            elif number == _GRAPH_NODE:
                names.update(_linear_weight(value))
        return dict(_named(tensors, names))
    except (StopIteration, IndexError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise BackboneCorruptError(
            f"{onnx_file.name} is not an exported BERT: {error or 'no graph in it'}"
        ) from error


def _named(
    tensors: dict[str, NDArray[np.float32]], linear_names: dict[str, str]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Give each tensor its name within BertModel; linear weights are turned to [out, in]."""
    for name, array in tensors.items():
        if name in linear_names:
            yield linear_names[name], np.ascontiguousarray(array.T)
        else:
            start = re.search(r"(?:embeddings|encoder)\.", name)
            if start is None:
                raise ValueError(f"a weight of unknown use: {name}")
            yield name[start.start() :], array


def _linear_weight(node: int | memoryview) -> dict[str, str]:
    """Return {weight's made-up name: its name within BertModel}, empty for other nodes."""
    inputs: list[str] = []
    name = op_type = ""
    for number, value in _fields(node):
        if number == _NODE_INPUT:
            inputs.append(_text(value))
        elif number == _NODE_NAME:
            name = _text(value)
        elif number == _NODE_OP_TYPE:
            op_type = _text(value)
    match = _LINEAR_NODE.search(name)
    if op_type != "MatMul" or match is None or len(inputs) != 2:
        return {}
    # The two products of attention itself match as well; their inputs are no weights, so the
    # names they would give are never looked up.
    return {inputs[1]: match[1].replace("/", ".") + "weight"}


def _tensor(tensor: int | memoryview) -> tuple[str, NDArray[np.float32]]:
    """Decode one TensorProto."""
    dims: list[int] = []
    name, data, data_type = "", memoryview(b""), 0
    for number, value in _fields(tensor):
        if number == _TENSOR_DIMS:
            dims.extend([value] if isinstance(value, int) else _varints(value))
        elif number == _TENSOR_DATA_TYPE and isinstance(value, int):
            data_type = value
        elif number == _TENSOR_NAME:
            name = _text(value)
        elif number == _TENSOR_RAW_DATA and isinstance(value, memoryview):
            data = value
    if data_type != _FLOAT:
        raise ValueError(f"{name} is of ONNX type {data_type}, expected float32 (1)")
    return name, np.frombuffer(data, dtype="<f4").reshape(dims)


def _text(value: int | memoryview) -> str:
    if isinstance(value, int):
        raise TypeError("a number where a name is expected")
    return bytes(value).decode()


def _fields(message: int | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value) of a protobuf message; fixed-width fields are skipped."""
    if isinstance(message, int):
        raise TypeError("a number where a message is expected")
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = _varint(message, position)
            yield number, value
        elif wire_type == 2:
            size, position = _varint(message, position)
            if position + size > len(message):
                raise ValueError("truncated")
            yield number, message[position : position + size]
            position += size
        elif wire_type in (1, 5):
            position += 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type}")


def _varints(packed: memoryview) -> Iterator[int]:
    position = 0
    while position < len(packed):
        value, position = _varint(packed, position)
        yield value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Decode a base-128 number; return it and the position after it."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
