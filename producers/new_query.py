"""Makes queries, each with an id of its own."""

from uuid_utils import uuid7

from messages.query import NO_PARAMETERS, Query, QueryParameters


def new_query_id() -> str:
    """Return a new UUIDv7 as 32 hexadecimal digits: ids sort by the time they were made."""
    return uuid7().hex


def new_query(
    task: str,
    text: str,
    text_pair: str | None = None,
    *,
    parameters: QueryParameters = NO_PARAMETERS,
    ttl_ms: int | None = None,
    query_id: str | None = None,
) -> Query:
    """Return a query.

    Args:
        task: `name`, `name@revision` or `name:alias`.
        text: What the task is asked about.
        text_pair: The second text, for tasks that take pairs.
        parameters: What is asked for beside the answer.
        ttl_ms: Deadline, in milliseconds from the broker's append time.
        query_id: The caller's own id; by default a new one.
    """
    return Query(query_id or new_query_id(), task, text, text_pair, parameters, ttl_ms)
