"""What every command prints with."""

import io
import json
import math

import pytest
from rich.console import Console

from petstream.output import counting_bar, json_text


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_json_holds_null_for_what_is_not_finite(value: float) -> None:
    """However deep it lies: strict readers refuse Infinity and NaN."""
    document = {"a": [value, {"b": (value, 1.5)}], "c": True, "d": "text"}

    text = json_text(document)

    assert json.loads(text) == {"a": [None, {"b": [None, 1.5]}], "c": True, "d": "text"}


@pytest.mark.parametrize("total", [2, None])
def test_a_bar_counts_on_a_terminal(total: int | None) -> None:
    """With or without an end that is known."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80)

    with counting_bar("published", total, on=console) as on_published:
        on_published()
        on_published()

    assert isinstance(console.file, io.StringIO)
    assert "published" in console.file.getvalue()
    assert f"2/{total or '?'}" in console.file.getvalue()


def test_elsewhere_a_bar_is_silent() -> None:
    """In a log or a pipe there is nothing of it."""
    console = Console(file=io.StringIO(), force_terminal=False)

    with counting_bar("published", 1, on=console) as on_published:
        on_published()

    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ""
