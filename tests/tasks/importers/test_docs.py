"""docs/importing.md says what the code does: its tables are complete."""

import re
from pathlib import Path

import pytest

from tasks import errors
from tasks.errors import ImportRefused
from tasks.importers.peft.unsupported import SUPPORTED
from tasks.importers.weight_changes import DeltaOptions

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "importing.md").read_text()
SOURCES = "\n".join(
    path.read_text() for path in sorted((ROOT / "tasks" / "importers").rglob("*.py"))
)
CODES = sorted(set(re.findall(r'Finding\(\s*(?:severity|"\w+"), "(\w+)"', SOURCES)))


def test_findings_are_found() -> None:
    assert {"zero_lora_b", "delta_error", "labels_unnamed"} <= set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_every_finding_is_explained(code: str) -> None:
    assert f"`{code}`" in PAGE


def test_no_finding_is_explained_that_there_is_none_of() -> None:
    table = PAGE.partition("## What you are told: findings")[2].partition("## ")[0]
    named = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)

    assert sorted(code for row in named for code in re.findall(r"`(\w+)`", row)) == CODES


@pytest.mark.parametrize(
    "error",
    [
        name
        for name, found in vars(errors).items()
        if isinstance(found, type) and issubclass(found, ImportRefused) and found != ImportRefused
    ],
)
def test_every_error_is_explained(error: str) -> None:
    assert f"`{error}`" in PAGE


@pytest.mark.parametrize("kind", SUPPORTED)
def test_every_kind_of_peft_that_is_taken_is_named(kind: str) -> None:
    assert f"`{kind}`" in PAGE


def test_the_defaults_are_those_of_the_code() -> None:
    options = DeltaOptions()

    assert f"`--rank` ({options.rank})" in PAGE
    assert f"`--density` ({options.density})" in PAGE
