"""A query's record as its producer published it, which every hop keeps for the dead letters."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OriginalRecord:
    """Value and headers, byte for byte; key and place are in the reply address and the origin."""

    value: bytes
    headers: tuple[tuple[str, bytes | None], ...] = ()
