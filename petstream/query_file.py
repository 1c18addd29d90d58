"""Files of queries: one JSON object per line, with the fields of a query's value."""

import json
from collections.abc import Iterable, Iterator

from messages.errors import MessageError
from messages.query import Query
from messages.query_schema import validate_query
from producers.new_query import new_query_id


class QueryFileError(ValueError):
    """A line that is no query."""


def read_queries(
    lines: Iterable[str], *, task: str | None = None, ignore_unknown: bool = False
) -> Iterator[Query]:
    """Read queries, as they are wanted; empty lines are skipped.

    Args:
        lines: Each a JSON object: `text` and, where it is not given here, `task`; optional
            `text_pair`, `id`, `parameters`, `ttl_ms`.
        task: For lines without one.
        ignore_unknown: Whether further fields, such as a label, may be there.

    Raises:
        QueryFileError: At the first line that is no query; it names the line.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            if not isinstance(fields, dict):
                raise QueryFileError(f"line {number}: expected a JSON object")
            fields.setdefault("id", new_query_id())
            if task is not None:
                fields.setdefault("task", task)
            yield validate_query(fields, may_hold_unknown=ignore_unknown)
        except MessageError as error:
            raise QueryFileError(f"line {number}: {error.detail} ({error.reason.value})") from error
        except (json.JSONDecodeError, RecursionError) as error:
            raise QueryFileError(f"line {number}: not JSON: {error}") from error
