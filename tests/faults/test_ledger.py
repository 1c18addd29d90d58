"""The ledger says what is known, also of a sender that died."""

from pathlib import Path

import pytest

from messages.digest import input_digest
from messages.origin import Origin
from messages.query import Query
from tests.faults.ledger import Ledger, Publication, read_ledger

QUERIES = [Query(f"q{n}", "task", f"text {n}") for n in range(4)]


def test_every_fate_is_told_apart(tmp_path: Path) -> None:
    """Stored, certainly not stored, unknown, and unknown because nothing more was written."""
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        for query in QUERIES:
            ledger.invoke(query)
        ledger.ok("q0", Origin("queries", "id", 3, 17))
        ledger.fail("q1", "too large")
        ledger.info("q2", "timed out")

    publications = read_ledger(path.read_text().splitlines())

    assert publications == [
        Publication("q0", "task", input_digest("text 0"), "ok", 3, 17),
        Publication("q1", "task", input_digest("text 1"), "fail"),
        Publication("q2", "task", input_digest("text 2"), "info"),
        Publication("q3", "task", input_digest("text 3"), "info"),
    ]


def test_each_line_is_written_at_once(tmp_path: Path) -> None:
    """A ledger that is still open (or whose writer was killed) can be read."""
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.invoke(QUERIES[0])

        assert [p.outcome for p in read_ledger(path.read_text().splitlines())] == ["info"]


def test_a_query_cannot_be_invoked_twice(tmp_path: Path) -> None:
    """Its fate would be ambiguous."""
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.invoke(QUERIES[0])
        ledger.invoke(QUERIES[0])

    with pytest.raises(ValueError, match="q0 was invoked twice"):
        read_ledger(path.read_text().splitlines())
