"""The demo's tasks and their labelled sample rows: `examples/tasks/<name>/`."""

import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.bio_tags import bio_spans
from tasks.word_tokens import split_words

EXAMPLES_DIR = Path(
    os.environ.get("PETSTREAM_EXAMPLES_DIR", Path(__file__).resolve().parent.parent / "examples")
)


class ExamplesMissingError(FileNotFoundError):
    """The folder of the demo's tasks is not there."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One real row with the labels that people gave it."""

    task: str
    text: str
    labels: tuple[str, ...] = ()
    tags: tuple[tuple[int, int, str], ...] | None = None
    """Tagging: first character, behind the last, name of each span, in text order."""


@dataclass(frozen=True, slots=True)
class DemoTask:
    """One task of the demo."""

    name: str
    folder: Path
    pet_kind: str
    label_kind: str
    samples: tuple[Sample, ...]


def load_demo_tasks(examples_dir: Path = EXAMPLES_DIR) -> list[DemoTask]:
    """Read every task folder that has a description and sample rows.

    Raises:
        ExamplesMissingError: If there is none.
    """
    folders = sorted(path.parent for path in (examples_dir / "tasks").glob("*/sample.jsonl"))
    if not folders:
        raise ExamplesMissingError(
            f"no tasks under {examples_dir / 'tasks'}: run the demo from a clone of the "
            "repository or set PETSTREAM_EXAMPLES_DIR"
        )
    return [_load(folder) for folder in folders]


def _load(folder: Path) -> DemoTask:
    description = json.loads((folder / "task.json").read_text())
    name = description["name"]
    with (folder / "sample.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return DemoTask(
        name=name,
        folder=folder,
        pet_kind=description["levels"][0]["pet"]["kind"],
        label_kind=description["kind"],
        samples=tuple(_sample(name, description["kind"], row) for row in rows),
    )


def _sample(task: str, kind: str, row: dict[str, Any]) -> Sample:
    if kind == "tagging":
        words = list(split_words(row["text"]))
        spans = bio_spans(enumerate(row["labels"]))
        return Sample(
            task,
            row["text"],
            tags=tuple((words[s.first].start(), words[s.last].end(), s.name) for s in spans),
        )
    labels = row["labels"] if kind == "multi_label" else [row["label"]]
    return Sample(task, row["text"], tuple(labels))


def draw_samples(tasks: Sequence[DemoTask], count: int, seed: int) -> list[Sample]:
    """Draw `count` rows, the tasks in equal parts and in random order.

    A task with fewer rows than its part gives them again.
    """
    generator = random.Random(seed)
    decks = [generator.sample(task.samples, len(task.samples)) for task in tasks]
    drawn = [deck[turn % len(deck)] for turn, deck in _deal(decks, count)]
    generator.shuffle(drawn)
    return drawn


def _deal(decks: Sequence[list[Sample]], count: int) -> list[tuple[int, list[Sample]]]:
    return [(number // len(decks), decks[number % len(decks)]) for number in range(count)]
