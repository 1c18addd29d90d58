"""Where librdkafka's own log lines go: a logger of its own, without its repetitions.

While a broker is away every client tells of each attempt to reconnect, twenty times a second.
"""

import logging
import re
from time import monotonic

REPEAT_AFTER_S = 10.0

_NUMBERS = re.compile(r"\d+")
_MAX_REMEMBERED = 1000


class RepeatFilter(logging.Filter):
    """Lets a line pass once in ten seconds; lines that differ only in numbers are the same."""

    def __init__(self) -> None:
        super().__init__()
        self._passed_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the line is news."""
        now_s = monotonic()
        line = _NUMBERS.sub("#", record.getMessage())
        if now_s - self._passed_s.get(line, float("-inf")) < REPEAT_AFTER_S:
            return False
        if len(self._passed_s) >= _MAX_REMEMBERED:
            self._passed_s.clear()
        self._passed_s[line] = now_s
        return True


client_log = logging.getLogger("transport.librdkafka")
client_log.addFilter(RepeatFilter())
