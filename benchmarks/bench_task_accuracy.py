"""How right the demo tasks are: each PET and level beside the linear probe, and the cascade.

    PETSTREAM_DATA=/path/to/data python benchmarks/bench_task_accuracy.py [--task NAME] [--json]

With the public data sets the figures are of the full public test splits (sms_spam and nlupp: of our
own), and the probe is scikit-learn's logistic regression on the same frozen backbone's mean-pooled
features, trained on the same rows as the PET. Without them the figures are of the few committed
sample rows, and there is no probe, because there are no training rows.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.document import Goal, make_document
from examples.prepare_data import prepare
from petstream.settings import load_settings
from tasks.artifact import Artifact, open_artifact
from tasks.calibration_fit import measure_cascade
from tasks.training.artifact_model import encode_for_level, level_model
from tasks.training.evaluation import PerRow, extract_features, predict
from tasks.training.model import load_dense_model
from tasks.training.objectives import PRIMARY, figures
from tasks.training.probe import fit_probe
from tasks.training.rows import LabelledRows, read_rows
from tasks.training.runtime import prepare_process
from workers.backbone_store import find

TASKS = Path(__file__).parents[1] / "examples" / "tasks"
PROBE_SEED = 0


class TaskRows(NamedTuple):
    """What a task is measured on."""

    test: LabelledRows
    train: LabelledRows | None
    """None: only the sample rows are at hand."""


class LevelResult(NamedTuple):
    """One level of one task."""

    row: dict[str, Any]
    logits: PerRow


def measure_task(artifact: Artifact, rows: TaskRows, models_dir: Path) -> list[dict[str, Any]]:
    """Return a row per level, and one for the cascade where it was fitted."""
    description = artifact.description
    levels = [
        _measure_level(artifact, level.level, rows, find(level.backbone.name, models_dir))
        for level in description.levels
    ]
    measured = [level.row for level in levels]
    cascade = description.cascade
    if cascade is not None:
        found = measure_cascade(
            [level.logits.outputs for level in levels],
            levels[0].logits.targets,
            description.kind,
            cascade,
        )
        measured.append(
            {
                "task": description.name,
                "level": "cascade",
                "rows": found.num_rows,
                "threshold": cascade.threshold,
                PRIMARY[description.kind]: found.cascade_accuracy,
                "large_less_small": found.level_accuracies[-1] - found.level_accuracies[0],
                "large_less_cascade": found.level_accuracies[-1] - found.cascade_accuracy,
                "escalated_share": found.escalated_share,
                "calibration_errors": list(found.errors_after),
            }
        )
    return measured


def _measure_level(artifact: Artifact, level: int, rows: TaskRows, backbone: Path) -> LevelResult:
    description = artifact.description
    described = description.level(level)
    kind = description.kind
    test = encode_for_level(artifact, level, backbone, rows.test)
    started = time.perf_counter()
    found = predict(level_model(artifact, level, backbone), test, kind)
    logits, targets = found.stacked()
    cut = None if description.cascade is None else description.cascade.decision_threshold
    row: dict[str, Any] = {
        "task": description.name,
        "level": level,
        "backbone": described.backbone.name,
        "pet": described.pet.kind,
        "kilobytes": round((artifact.folder / described.file).stat().st_size / 1000, 1),
        "rows": len(test),
        **figures(logits, targets, kind, cut or 0.5),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if rows.train is not None:
        frozen = load_dense_model(backbone, description.num_labels, described.pooling)
        train = encode_for_level(artifact, level, backbone, rows.train)
        features, wanted = extract_features(frozen, train, kind).stacked()
        probe = fit_probe(features, wanted, kind, description.num_labels, PROBE_SEED)
        test_features, _ = extract_features(frozen, test, kind).stacked()
        row["probe"] = figures(probe.logits(test_features), targets, kind)
    return LevelResult(row, found)


@contextmanager
def rows_of(names: Sequence[str], data: str | None) -> Iterator[dict[str, TaskRows]]:
    """Yield each task's rows: the public splits where the data is, else the committed samples."""
    if data is None:
        yield {name: TaskRows(read_rows(TASKS / name / "sample.jsonl"), None) for name in names}
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(data), Path(folder), names)
        yield {
            name: TaskRows(
                read_rows(Path(folder) / name / "test.jsonl"),
                read_rows(Path(folder) / name / "train.jsonl"),
            )
            for name in names
        }


def goals_of(rows: Sequence[dict[str, Any]]) -> list[Goal]:
    """Each PET is at least the probe on the same backbone."""
    return [
        Goal(
            f"{row['task']}-level-{row['level']}-beats-probe",
            target=round(row["probe"][primary], 4),
            value=round(row[primary], 4),
            unit=primary,
        )
        for row in rows
        if "probe" in row
        for primary in PRIMARY.values()
        if primary in row
    ]


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    print(f"{'task':<12}{'level':<9}{'PET':<9}{'rows':>6}  {'PET':>8}{'probe':>8}   kB / escalated")
    for row in rows:
        for name in ("accuracy", "exact_match", "micro_f1", "pearson", "word_accuracy"):
            if name not in row:
                continue
            probe = row.get("probe", {}).get(name)
            last = (
                f"{row['escalated_share']:.1%} escalated"
                if row["level"] == "cascade"
                else f"{row['kilobytes']} kB"
            )
            print(
                f"{row['task']:<12}{row['level']!s:<9}{row.get('pet', ''):<9}{row['rows']:>6}  "
                f"{row[name]:>8.4f}{'' if probe is None else f'{probe:.4f}':>8}   {last}  ({name})"
            )


def main() -> None:
    """Measure what the options name and print it."""
    names = sorted(folder.parent.name for folder in TASKS.glob("*/task.json"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--task", action="append", choices=names)
    parser.add_argument("--data", default=os.environ.get("PETSTREAM_DATA"))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    prepare_process(arguments.threads)
    chosen = arguments.task or names
    models_dir = load_settings().models_dir
    measured: list[dict[str, Any]] = []
    with rows_of(chosen, arguments.data) as rows:
        for name in chosen:
            measured += measure_task(open_artifact(TASKS / name), rows[name], models_dir)
            if not arguments.json:
                _print_table([row for row in measured if row["task"] == name])
    goals = goals_of(measured)
    if arguments.json:
        print(json.dumps(make_document(measured, goals)))
        return
    for goal in goals:
        print(f"{goal.id}: {goal.value} {'>=' if goal.met else 'MISSES'} {goal.target}")
    if arguments.data is None:
        print("sample rows only: set PETSTREAM_DATA for the full test splits and the probe")


if __name__ == "__main__":
    main()
