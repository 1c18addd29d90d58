"""What every encoder returns."""

from typing import NamedTuple


class EncodedMessage(NamedTuple):
    """Value and headers of a record. The key is the caller's choice."""

    value: bytes
    headers: tuple[tuple[str, bytes], ...]
