"""MessagePack to a tree of plain values, with hard limits and one kind of error.

Stricter than the library: a single map at the top, string keys, no key twice, no extension types,
nothing behind the map. Whether the fields are right is the schema's business.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import msgpack  # type: ignore[import-untyped]

from messages.errors import MessageError, Reason
from messages.limits import MAX_MAP_ITEMS

_NIL = b"\xc0"


def pack(tree: object) -> bytes:
    """Encode a tree of plain values.

    Raises:
        MessageError: A string holds lone surrogates, or an integer has more than 64 bits.
    """
    try:
        packed: bytes = msgpack.packb(tree)
    except UnicodeEncodeError as error:
        raise MessageError(Reason.INVALID_UTF8, "a string is not valid Unicode") from error
    except OverflowError as error:
        raise MessageError(Reason.OUT_OF_RANGE, "an integer has more than 64 bits") from error
    return packed


def pack_with_singles(fields: Mapping[str, object], name: str) -> bytes:
    """Encode a map, last in it the field `name`: floats as float32, which take 5 bytes, not 9.

    Raises:
        MessageError: As `pack`, or a number of the field is beyond float32.
    """
    rest = pack({key: value for key, value in fields.items() if key != name} | {name: None})
    try:
        singles: bytes = msgpack.packb(fields[name], use_single_float=True)
    except OverflowError as error:
        raise MessageError(Reason.OUT_OF_RANGE, f"{name}: a number is beyond float32") from error
    return rest.removesuffix(_NIL) + singles


def read_msgpack(data: bytes, *, max_array_items: int, arrays_as: type = list) -> dict[str, Any]:
    """The map that `data` encodes.

    Args:
        data: A whole payload, its size already checked.
        max_array_items: Longest array accepted.
        arrays_as: `list` or `tuple`.

    Raises:
        MessageError: `data` is anything else than exactly one such map.
    """
    try:
        tree = msgpack.unpackb(
            data,
            use_list=arrays_as is list,
            object_pairs_hook=build_map,
            ext_hook=_refuse_extension,
            max_array_len=max_array_items,
            max_map_len=MAX_MAP_ITEMS,
        )
    except MessageError:
        raise
    except msgpack.ExtraData as error:
        raise _extra_data(error) from error
    except msgpack.StackError as error:
        raise MessageError(Reason.TOO_DEEP, "nested too deep") from error
    except msgpack.FormatError as error:
        raise MessageError(Reason.BAD_ENCODING, "not MessagePack: invalid type byte") from error
    except UnicodeDecodeError as error:
        raise MessageError(Reason.INVALID_UTF8, "a string is not valid UTF-8") from error
    except (ValueError, TypeError, OverflowError) as error:
        raise _by_library_text(error) from error
    if is_timestamp(tree):
        raise MessageError(Reason.EXT_FORBIDDEN, "timestamps are not accepted")
    if not isinstance(tree, dict):
        raise MessageError(Reason.NOT_A_MAP, "the payload is not a map")
    return tree


def build_map(pairs: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """A dict of `pairs`; shared with the JSON reader.

    Raises:
        MessageError: There are too many, a key is no string, or a key comes twice.
    """
    if len(pairs) > MAX_MAP_ITEMS:
        raise MessageError(Reason.TOO_MANY_ITEMS, "a map has too many items")
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise MessageError(Reason.DUPLICATE_KEY, "a map has the same key twice")
    for key in fields:
        if type(key) is not str:
            raise MessageError(Reason.BAD_KEY, "map keys must be strings")
    return fields


def is_timestamp(value: object) -> bool:
    """Whether `value` is the one extension type that the library reads by itself."""
    return isinstance(value, msgpack.Timestamp)


def _refuse_extension(code: int, _data: bytes) -> NoReturn:
    raise MessageError(Reason.EXT_FORBIDDEN, f"extension types are not accepted, got {code}")


def _extra_data(error: msgpack.ExtraData) -> MessageError:
    # JSON, pickle, gzip and zip all begin with a byte that MessagePack reads as a small integer or
    # an empty map. None of those is a message, so the rest of the payload is not what is wrong.
    if isinstance(error.unpacked, dict) and error.unpacked:
        return MessageError(Reason.TRAILING_BYTES, "bytes follow the map")
    return MessageError(Reason.BAD_ENCODING, "not MessagePack; does content-type say what it is?")


def _by_library_text(error: Exception) -> MessageError:
    # msgpack tells these apart by their text only (1.2: _unpacker.pyx, unpack.h).
    text = str(error)
    if "max_array_len" in text or "max_map_len" in text:
        return MessageError(Reason.TOO_MANY_ITEMS, "an array or a map has too many items")
    if "max_ext_len" in text or "imestamp" in text or "nanoseconds" in text:
        return MessageError(Reason.EXT_FORBIDDEN, "extension types are not accepted")
    if "map key" in text or "unhashable" in text:
        return MessageError(Reason.BAD_KEY, "map keys must be strings")
    if "incomplete" in text or "max_str_len" in text or "max_bin_len" in text:
        return MessageError(Reason.TRUNCATED, "the payload ends within a value")
    return MessageError(Reason.BAD_ENCODING, "not MessagePack")
