"""Trains the six demo tasks again, for both levels, and calibrates them.

    python examples/prepare_data.py --data DATA --out WORK
    python examples/train_tasks.py --rows WORK --out examples/tasks

`DATA` is the folder of the public data sets. The backbones must be there (`petstream models fetch
minilm-l3 minilm-l6`). About 40 minutes on two quiet cores; `--task` and `--level` take
a part of it.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from petstream.engine_logits import engine_logits
from petstream.settings import load_settings
from tasks.artifact import open_artifact
from tasks.artifact_writer import add_level, write_artifact
from tasks.pets.adapter import Adapter
from tasks.pets.bitfit import BitFit
from tasks.pets.diff import Diff
from tasks.pets.ia3 import Ia3
from tasks.pets.kinds import AnyPet
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask
from tasks.training.calibrate import calibrate_task
from tasks.training.level import LevelPlan, pooling_for, train_level
from tasks.training.recipes import RecipeChanges, recipe_for
from tasks.training.reports import write_report
from tasks.training.rows import read_rows
from tasks.training.runtime import prepare_process
from workers.backbone_store import find
from workers.levels import LEVEL_BACKBONES


@dataclass(frozen=True)
class DemoTask:
    """What a demo task is trained with."""

    pet: AnyPet
    source: str
    licence: str
    max_tokens: int = 128
    recipe: RecipeChanges = field(default_factory=RecipeChanges)
    """Differences from the PET kind's default recipe."""


DEMO_TASKS = {
    "banking77": DemoTask(
        Adapter(placement="houlsby", bottleneck=48, activation="gelu"),
        "BANKING77 (Casanueva et al. 2020), PolyAI-LDN/task-specific-datasets@57ec275d",
        "CC BY 4.0",
        recipe={"start_c": 5.0, "epochs": 6, "peak_rate": 4e-3},
    ),
    "clinc150": DemoTask(
        Lora(rank=8, alpha=16.0),
        "CLINC150 (Larson et al. 2019), in-scope rows, clinc/oos-eval@828f8093",
        "CC BY 3.0",
    ),
    "hwu64": DemoTask(
        Diff(),
        "HWU64 (Liu et al. 2019), split of jianguoz/Few-Shot-Intent-Detection@fa955331",
        "CC BY 4.0",
        recipe={"dense_epochs": 1},
    ),
    "nlupp": DemoTask(
        Ia3(),
        "NLU++ (Casanueva et al. 2022), both domains, PolyAI-LDN/task-specific-datasets@57ec275d",
        "CC BY 4.0",
        recipe={"start_c": 30.0, "epochs": 16},
    ),
    "sms_spam": DemoTask(
        BitFit(),
        "SMS Spam Collection (Almeida et al. 2011), UCI; our own split",
        "CC BY 4.0 as stated by UCI",
        max_tokens=256,
        recipe={"epochs": 4},
    ),
    "snips": DemoTask(
        Mask(),
        "Snips (Coucke et al. 2018), split of MiuLab/SlotGated-SLU@61f0307c",
        "CC0 1.0",
        recipe={"epochs": 2},
    ),
}


def train_one(
    name: str, level: int, rows: Path, models_dir: Path, out: Path, changes: RecipeChanges
) -> None:
    """Train one level of one task into `out/<name>` and print its figures."""
    task = DEMO_TASKS[name]
    train_rows, validation_rows = (
        read_rows(rows / name / f"{split}.jsonl") for split in ("train", "validation")
    )
    labels = train_rows.label_set()
    plan = LevelPlan(
        backbone_name=LEVEL_BACKBONES[level],
        backbone=find(LEVEL_BACKBONES[level], models_dir),
        level=level,
        pet=task.pet,
        recipe=recipe_for(task.pet, **(task.recipe | changes)),
        pooling=pooling_for(train_rows.kind),
        max_tokens=task.max_tokens,
    )
    started = time.monotonic()

    def on_step(done: int, planned: int, value: float) -> None:
        if done % 50 == 0:
            elapsed_s = time.monotonic() - started
            done_share = f"{done}/{planned}"
            _say(f"{name} {level}: {done_share} loss {value:.4f} {elapsed_s:.0f} s")

    outcome = train_level(plan, train_rows, validation_rows, labels, on_step=on_step)
    folder = out / name
    if (folder / "task.json").is_file():
        add_level(folder, outcome.trained)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_artifact(
            folder,
            name=name,
            kind=train_rows.kind,
            labels=labels,
            takes_pair=train_rows.takes_pair,
            source=task.source,
            licence=task.licence,
            levels=[outcome.trained],
            overwrite=True,
        )
    write_report(folder, level, outcome.report)
    _say(json.dumps(outcome.report))


def calibrate_one(name: str, rows: Path, models_dir: Path, out: Path) -> None:
    """Fit the cascade of `out/<name>` and print what it does on the rows it was fitted to."""
    artifact = open_artifact(out / name)
    names = {level.backbone.name for level in artifact.description.levels}
    calibrated = calibrate_task(
        artifact,
        {backbone: find(backbone, models_dir) for backbone in names},
        read_rows(rows / name / "calibration.jsonl", artifact.description.kind),
        level_logits=engine_logits,
    )
    _say(f"{name}: {calibrated.figures}")


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a script for people


def main(given: Sequence[str] | None = None) -> None:
    """Train what the options name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=Path, required=True, help="what prepare_data.py wrote")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tasks")
    parser.add_argument("--task", action="append", choices=sorted(DEMO_TASKS))
    parser.add_argument("--level", action="append", type=int, choices=(0, 1))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--epochs", type=int, help="other than the recipes'")
    arguments = parser.parse_args(given)
    prepare_process(arguments.threads)
    changes: RecipeChanges = {} if arguments.epochs is None else {"epochs": arguments.epochs}
    models_dir = load_settings().models_dir
    for name in arguments.task or sorted(DEMO_TASKS):
        for level in arguments.level or (0, 1):
            train_one(name, level, arguments.rows, models_dir, arguments.out, changes)
        calibrate_one(name, arguments.rows, models_dir, arguments.out)
        shutil.copyfile(
            arguments.rows / name / "sample.jsonl", arguments.out / name / "sample.jsonl"
        )


if __name__ == "__main__":
    main()
