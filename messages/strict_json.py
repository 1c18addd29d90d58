"""JSON to a tree of plain values, with the same strictness as the MessagePack reader."""

import json
import re
from typing import Any, NoReturn

from messages.errors import MessageError, Reason
from messages.strict_msgpack import build_map


def write_json(tree: object) -> bytes:
    """Encode a tree of plain values as UTF-8 JSON on one line.

    Raises:
        MessageError: A float is not finite, or a string holds lone surrogates.
    """
    try:
        return _ENCODER.encode(tree).encode()
    except UnicodeEncodeError as error:
        raise MessageError(Reason.INVALID_UTF8, "a string is not valid Unicode") from error
    except ValueError as error:
        raise MessageError(Reason.OUT_OF_RANGE, "a number is not finite") from error


def read_json(data: bytes, *, max_array_items: int) -> dict[str, Any]:
    """The object that `data` holds as UTF-8 JSON.

    Args:
        data: A whole payload, its size already checked.
        max_array_items: Longest array accepted.

    Raises:
        MessageError: `data` is anything else than exactly one JSON object.
    """
    try:
        text = data.decode()
        tree = _DECODER.decode(text)
        if _SURROGATE.search(text):
            json.dumps(tree, ensure_ascii=False).encode()  # fails unless they come in pairs
    except UnicodeError as error:
        raise MessageError(Reason.INVALID_UTF8, "the payload is not valid Unicode") from error
    except json.JSONDecodeError as error:
        raise _by_position(error) from error
    except RecursionError as error:
        raise MessageError(Reason.TOO_DEEP, "nested too deep") from error
    except MessageError:
        raise
    except ValueError as error:  # more digits than sys.set_int_max_str_digits allows
        raise MessageError(Reason.OUT_OF_RANGE, "an integer is too large") from error
    if not isinstance(tree, dict):
        raise MessageError(Reason.NOT_A_MAP, "the payload is not a JSON object")
    if data.count(b",") >= max_array_items:  # so many commas stand in every array that is too long
        _check_arrays(tree, max_array_items)
    return tree


def _check_arrays(tree: object, max_items: int) -> None:
    unseen = [tree]
    while unseen:
        value = unseen.pop()
        if isinstance(value, dict):
            unseen.extend(value.values())
        elif isinstance(value, list):
            if len(value) > max_items:
                raise MessageError(Reason.TOO_MANY_ITEMS, "an array has too many items")
            unseen.extend(value)


def _refuse_constant(_text: str) -> NoReturn:
    raise MessageError(Reason.OUT_OF_RANGE, "NaN and Infinity are not accepted")


def _by_position(error: json.JSONDecodeError) -> MessageError:
    if error.msg.startswith("Extra data"):
        return MessageError(Reason.TRAILING_BYTES, f"text follows the object at {error.pos}")
    if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated"):
        return MessageError(Reason.TRUNCATED, "the payload ends within a value")
    return MessageError(Reason.BAD_ENCODING, f"not JSON at character {error.pos}")


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_DECODER = json.JSONDecoder(object_pairs_hook=build_map, parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
