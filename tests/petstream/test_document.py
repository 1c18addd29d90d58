"""What a benchmark's document says of itself."""

import sys

import pytest

from petstream.benchmarks.document import make_document


@pytest.mark.parametrize(
    ("called", "said"),
    [
        (["/any/where/petstream/__main__.py", "bench", "--json"], "petstream bench --json"),
        (["/any/where/bin/petstream", "bench"], "petstream bench"),
        (["benchmarks/bench_gpu.py", "--json"], "python benchmarks/bench_gpu.py --json"),
    ],
)
def test_the_command_is_one_that_anybody_can_run(
    monkeypatch: pytest.MonkeyPatch, called: list[str], said: str
) -> None:
    """Without the folder in which this machine has it."""
    monkeypatch.setattr(sys, "argv", called)

    assert make_document([], [])["command"] == said
