"""A checkpoint's JSON files: bounded, without doubled keys, an object or an array of them."""

import json
from typing import Any

from tasks.errors import BadCheckpoint

MAX_JSON_BYTES = 4 << 20
"""Configurations hold no weights; that of a model with 65,536 named labels has about 3 MB."""


def parse_object(raw: bytes, source: str) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        raw: At most `MAX_JSON_BYTES`.
        source: The file's name, for messages.

    Raises:
        BadCheckpoint: If the bytes are no JSON object, an object in it has a key twice, or it is
            nested deeper than the parser goes.
    """
    found = _parse(raw, source)
    if not isinstance(found, dict):
        raise BadCheckpoint(f"{source} is no JSON object: copy it again")
    return found


def parse_array(raw: bytes, source: str) -> list[Any]:
    """Parse a JSON array; as `parse_object`.

    Raises:
        BadCheckpoint: If the bytes are none.
    """
    found = _parse(raw, source)
    if not isinstance(found, list):
        raise BadCheckpoint(f"{source} is no JSON array: copy it again")
    return found


def _parse(raw: bytes, source: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        return json.loads(raw, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{source} is no JSON ({error}): copy it again") from error


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a key twice")
    return found
