"""Files of queries: what a line may hold, and which line is to blame."""

import json

import pytest

from messages.query import Query, QueryParameters
from petstream.query_file import QueryFileError, read_queries


def test_lines_become_queries() -> None:
    """All fields of a query's value; empty lines between them."""
    lines = [
        json.dumps({"task": "a", "text": "one", "id": "x1", "ttl_ms": 500}),
        "\n",
        json.dumps({"task": "b", "text": ["one", "two"], "parameters": {"top_k": 3}}),
    ]

    first, second = read_queries(lines)

    assert first == Query("x1", "a", "one", ttl_ms=500)
    assert (second.text, second.text_pair) == ("one", "two")
    assert second.parameters == QueryParameters(top_k=3)
    assert len(second.id) == 32


def test_a_task_for_lines_without_one() -> None:
    """The line's own task goes before it."""
    lines = ['{"text": "one"}', '{"text": "two", "task": "own"}']

    assert [query.task for query in read_queries(lines, task="given")] == ["given", "own"]


def test_labelled_rows_are_queries_only_on_demand() -> None:
    """A misspelt field must not pass unseen."""
    lines = ['{"task": "a", "text": "one", "label": "x"}']

    assert [q.text for q in read_queries(lines, ignore_unknown=True)] == ["one"]
    with pytest.raises(QueryFileError, match=r"line 1: .*UNKNOWN_FIELD"):
        list(read_queries(lines))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "expected a JSON object"),
        ('{"text": "one"}', "MISSING_FIELD"),
        ('{"task": "a", "text": 3}', "WRONG_TYPE"),
        ('{"task": "../etc", "text": "one"}', "BAD_FORMAT"),
        ('{"task": "a", "text": " "}', "EMPTY_TEXT"),
        ('{"task": "a", "text": "one", "ttl_ms": 0}', "OUT_OF_RANGE"),
    ],
)
def test_a_bad_line_is_named(line: str, why: str) -> None:
    """The second line is to blame; the first was given."""
    queries = read_queries(['{"task": "a", "text": "good"}', line])

    assert next(queries).text == "good"
    with pytest.raises(QueryFileError, match=f"line 2: .*{why}"):
        next(queries)
