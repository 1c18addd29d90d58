"""How right the demo tasks are: each PET and level beside the linear probe, and the cascade.

    PETSTREAM_DATA=/path/to/data python benchmarks/bench_task_accuracy.py [--task NAME] [--json]

With the public data sets the figures are of the full public test splits (sms_spam and nlupp: of our
own), and the probe is scikit-learn's logistic regression on the same frozen backbone's mean-pooled
features, trained on the same rows as the PET. Multi-label: both give a label from a probability
that was fitted on the same calibration rows. Without the data sets the figures are of the few
committed sample rows, and there is no probe, because there are no training rows.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from examples.prepare_data import prepare
from petstream.benchmarks.document import Goal, make_document
from petstream.settings import load_settings
from tasks.artifact import Artifact, open_artifact
from tasks.backbone_shape import LINEAR_SITES, read_shape
from tasks.calibration_fit import fit_cascade, measure_cascade
from tasks.description import Cascade
from tasks.training.artifact_model import encode_for_level, level_model
from tasks.training.batches import EncodedRow
from tasks.training.evaluation import PerRow, extract_features, predict
from tasks.training.figures import PRIMARY, figures
from tasks.training.model import load_dense_model
from tasks.training.probe import Probe, fit_probe
from tasks.training.rows import LabelledRows, read_rows
from tasks.training.runtime import prepare_process
from workers.backbone_store import find

TASKS = Path(__file__).parents[1] / "examples" / "tasks"
PROBE_SEED = 0
CASCADE_FIGURE = {**PRIMARY, "tagging": "exact_match"}
"""What `tasks.calibration_fit.accuracy` measures."""


class ProbeRows(NamedTuple):
    """What the probe learns from: the rows that the PET and its cascade learned from."""

    train: LabelledRows
    calibration: LabelledRows


class TaskRows(NamedTuple):
    """What a task is measured on."""

    test: LabelledRows
    probe: ProbeRows | None
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
                "figure": CASCADE_FIGURE[description.kind],
                CASCADE_FIGURE[description.kind]: found.cascade_accuracy,
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
    place = description.levels.index(described)
    row: dict[str, Any] = {
        "task": description.name,
        "level": level,
        "backbone": described.backbone.name,
        "pet": described.pet.kind,
        "kilobytes": round((artifact.folder / described.file).stat().st_size / 1000, 1),
        "rows": len(test),
        "figure": PRIMARY[kind],
        **decided_figures(found, description.labels, description.cascade, place),
        "seconds": round(time.perf_counter() - started, 1),
    }
    changed = changed_share(artifact, level, backbone)
    if changed is not None:
        row["changed_share"] = round(changed, 4)
    if rows.probe is not None:
        row["probe"] = _measure_probe(artifact, level, rows.probe, test, backbone)
    return LevelResult(row, found)


def _measure_probe(
    artifact: Artifact,
    level: int,
    rows: ProbeRows,
    test: Sequence[EncodedRow],
    backbone: Path,
) -> dict[str, float]:
    """Return the figures of the linear probe on the level's frozen backbone."""
    description = artifact.description
    kind = description.kind
    frozen = load_dense_model(backbone, description.num_outputs, description.level(level).pooling)
    train = encode_for_level(artifact, level, backbone, rows.train)
    features, wanted = extract_features(frozen, train, kind).stacked()
    probe = fit_probe(features, wanted, kind, description.num_outputs, PROBE_SEED)
    cascade = None
    if kind == "multi_label":
        calibration = encode_for_level(artifact, level, backbone, rows.calibration)
        held = _probed(probe, extract_features(frozen, calibration, kind))
        cascade = fit_cascade([held.outputs], held.targets, kind)
    probed = _probed(probe, extract_features(frozen, test, kind))
    return decided_figures(probed, description.labels, cascade, 0)


def _probed(probe: Probe, features: PerRow) -> PerRow:
    return features.with_outputs(probe.logits(features.stacked()[0]))


def decided_figures(
    found: PerRow, labels: Sequence[str], cascade: Cascade | None, place: int
) -> dict[str, float]:
    """Return the figures of the decisions that a worker takes with a fitted cascade.

    Args:
        found: Logits and targets.
        labels: Of the task.
        cascade: None: nothing was fitted.
        place: Of the level in the cascade.
    """
    if cascade is None or cascade.decision_threshold is None:
        return figures(found, labels)
    calibrated = found.stacked()[0] / np.float32(cascade.temperatures[place])
    return figures(found.with_outputs(calibrated), labels, cascade.decision_threshold)


def changed_share(artifact: Artifact, level: int, backbone: Path) -> float | None:
    """Return the share of the encoder's weights that mask or diff change; None for the others."""
    shape = read_shape(backbone)
    sites = artifact.load_level(level, shape).sites.values()
    sparse = [ops.sparse for ops in sites if ops.sparse is not None]
    if not sparse:
        return None
    num_weights = shape.num_layers * sum(math.prod(shape.linear_shape(s)) for s in LINEAR_SITES)
    return sum(change.flat_indices.size for change in sparse) / num_weights


@contextmanager
def rows_of(names: Sequence[str], data: str | None) -> Iterator[dict[str, TaskRows]]:
    """Yield each task's rows: the public splits where the data is, else the committed samples."""
    if data is None:
        yield {name: TaskRows(_labelled(name, TASKS), None) for name in names}
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(data), Path(folder), names)
        yield {name: _public_rows(name, Path(folder)) for name in names}


def _public_rows(name: str, folder: Path) -> TaskRows:
    test, train, calibration = (
        _labelled(name, folder, split) for split in ("test", "train", "calibration")
    )
    return TaskRows(test, ProbeRows(train, calibration))


def _labelled(name: str, folder: Path, split: str = "sample") -> LabelledRows:
    kind = open_artifact(TASKS / name).description.kind
    return read_rows(folder / name / f"{split}.jsonl", kind)


def goals_of(rows: Sequence[dict[str, Any]]) -> list[Goal]:
    """Each PET is at least the probe on the same backbone."""
    return [
        Goal(
            f"{row['task']}-level-{row['level']}-beats-probe",
            target=round(row["probe"][row["figure"]], 4),
            value=round(row[row["figure"]], 4),
            unit=row["figure"],
        )
        for row in rows
        if "probe" in row
    ]


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    print(f"{'task':<12}{'level':<9}{'PET':<9}{'rows':>6}  {'PET':>8}{'probe':>8}   kB / escalated")
    for row in rows:
        for name in (
            "accuracy",
            "exact_match",
            "micro_f1",
            "pearson",
            "span_f1",
            "word_accuracy",
        ):
            if name not in row:
                continue
            probe = row.get("probe", {}).get(name)
            last = (
                f"{row['escalated_share']:.1%} escalated"
                if row["level"] == "cascade"
                else f"{row['kilobytes']} kB"
            )
            if "changed_share" in row:
                last += f", {row['changed_share']:.1%} of the weights changed"
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
    chosen = arguments.task or [
        name for name in names if arguments.data or (TASKS / name / "sample.jsonl").is_file()
    ]
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
