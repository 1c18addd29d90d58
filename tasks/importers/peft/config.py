"""`adapter_config.json` of PEFT: what its fields say, checked as they are asked for.

Patterns in it are regular expressions that a stranger wrote. They are matched as PEFT matches
them, but only where matching cannot take exponential time.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.errors import BadCheckpoint, KindUnsupported

FILE = "adapter_config.json"
_MAX_PATTERN_LENGTH = 200
_MAX_QUANTIFIERS = 3


class PeftConfig:
    """The fields of one configuration; those that nobody asks for are not looked at."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw

    @property
    def kind(self) -> str:
        """`peft_type`, such as LORA."""
        return self.text("peft_type") or ""

    def has(self, name: str) -> bool:
        """Whether a field is there and says anything."""
        return self._raw.get(name) not in (None, False, "", [], {})

    def text(self, name: str) -> str | None:
        """Return a text field.

        Raises:
            BadCheckpoint: If it is something else, or longer than 1,000 characters.
        """
        value = self._raw.get(name)
        if value is not None and (not isinstance(value, str) or len(value) > 1000):
            raise BadCheckpoint(f"{FILE}: {name} is no short text")
        return value

    def number(self, name: str, default: float) -> float:
        """Return a number field.

        Raises:
            BadCheckpoint: If it is something else.
        """
        value = self._raw.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
            raise BadCheckpoint(f"{FILE}: {name} is no number: {str(value)[:50]}")
        return value

    def numbers(self, name: str) -> list[int]:
        """Return a list of whole numbers; empty where there is none.

        Raises:
            BadCheckpoint: If it is something else.
        """
        value = self._raw.get(name) or []
        if not isinstance(value, list) or any(type(item) is not int for item in value):
            raise BadCheckpoint(f"{FILE}: {name} is no list of whole numbers")
        return value

    def names(self, name: str) -> list[str] | None:
        """Return a list of texts; None where the field is no list."""
        value = self._raw.get(name)
        if not isinstance(value, list):
            return None
        return [item for item in value if isinstance(item, str)]

    def pattern(self, name: str) -> dict[str, float]:
        """Return a mapping of patterns to numbers.

        Raises:
            BadCheckpoint: If it is something else.
        """
        value = self._raw.get(name) or {}
        if not isinstance(value, dict) or any(
            isinstance(item, bool) or not isinstance(item, int | float) for item in value.values()
        ):
            raise BadCheckpoint(f"{FILE}: {name} does not map patterns to numbers")
        return value

    def raw(self, name: str) -> Any:  # noqa: ANN401 - whatever JSON held
        """Return a field as it stands."""
        return self._raw.get(name)


def matching_key(patterns: Iterable[str], module: str) -> str | None:
    """Return the first pattern that the module's path ends in, as PEFT has it.

    Raises:
        BadCheckpoint: If a pattern is no regular expression.
        KindUnsupported: If matching one could take forever.
    """
    for pattern in patterns:
        _check_harmless(pattern)
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return pattern
        except (re.error, RecursionError, OverflowError) as error:
            raise BadCheckpoint(f"{FILE}: bad pattern {pattern[:100]!r}: {error}") from error
    return None


def _check_harmless(pattern: str) -> None:
    """Refuse repeated groups, which backtrack exponentially, and many repetitions in a row."""
    plain = re.sub(r"\\.", "_", pattern)
    if (
        len(pattern) > _MAX_PATTERN_LENGTH
        or len(re.findall(r"[*+?{]", plain)) > _MAX_QUANTIFIERS
        or re.search(r"\)[*+?{]", plain)
    ):
        raise KindUnsupported(
            f"{FILE}: the pattern {pattern[:100]!r} is too involved to be matched safely: write "
            f"out the modules' names"
        )
