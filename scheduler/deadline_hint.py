"""When a record wants to be done with, found without decoding it: a hint for closing windows.

Decoding belongs to the compute thread; here a search for a field's name and the number behind it
is enough, and no more than a hint. A text that contains such bytes makes a window close early,
which costs everybody in it company in their batches: the window therefore bounds what a hint may
do. A deadline in a form not looked for (`ce_expirytime`) waits a window's full time: the true
deadline is checked after decoding.
"""

import re
import struct
from collections.abc import Callable

from transport.records import Record

# How MessagePack begins a number, and how its content is read; below 0x80 the byte is the number.
_PACKED_NUMBERS = {
    0xCA: struct.Struct(">f"),
    0xCB: struct.Struct(">d"),
    0xCC: struct.Struct(">B"),
    0xCD: struct.Struct(">H"),
    0xCE: struct.Struct(">I"),
    0xCF: struct.Struct(">Q"),
}
_JSON_NUMBER = re.compile(rb'"\s*:\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)')

_FIELDS: dict[bytes, Callable[[float, int], float]] = {
    b"ttl_ms": lambda number, appended_ms: appended_ms + number,
    b"latency_slo_ms": lambda number, appended_ms: appended_ms + number,
    b"expires_at_ms": lambda number, _appended_ms: number,
    b"deadline_ms": lambda number, _appended_ms: number,
}


def deadline_ms_of(record: Record) -> float | None:
    """Return the earliest time a query or escalation names, in milliseconds since 1970."""
    value = record.value
    if value is None or b"_ms" not in value:
        return None
    found = [
        deadline_of(number, record.appended_ms)
        for name, deadline_of in _FIELDS.items()
        if (number := _number_behind(value, name)) is not None
    ]
    return min(found, default=None)


def _number_behind(value: bytes, name: bytes) -> float | None:
    start = value.find(name)
    if start < 0 or start + len(name) == len(value):
        return None
    start += len(name)
    first = value[start]
    if first < 0x80 and first != ord('"'):
        return float(first)
    packed = _PACKED_NUMBERS.get(first)
    if packed is not None and start + 1 + packed.size <= len(value):
        number = float(packed.unpack_from(value, start + 1)[0])
        return number if number >= 0 else None
    match = _JSON_NUMBER.match(value, start)
    return float(match[1]) if match else None
