"""Trains the example tasks again, level by level, and calibrates them.

    python examples/prepare_data.py --data DATA --out WORK
    python examples/train_tasks.py --rows WORK --out examples/tasks

`DATA` is the folder of the public data sets. The backbones must be there (`petstream models fetch
minilm-l3 minilm-l6`). About 90 minutes on two quiet cores; `--task` and `--level` take
a part of it.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from messages.task_event import TaskKind
from petstream.engine_logits import engine_logits
from petstream.settings import Settings, load_settings
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
class ExampleTask:
    """What an example task is trained with."""

    pet: AnyPet
    source: str
    licence: str
    max_tokens: int = 128
    recipe: RecipeChanges = field(default_factory=RecipeChanges)
    """Differences from the PET kind's default recipe."""
    kind: TaskKind | None = None
    """None: by the rows' field."""
    levels: tuple[int, ...] = (0, 1)
    has_sample: bool = True
    """Whether the licence of the rows lets some of them be committed."""


EXAMPLE_TASKS = {
    "banking77": ExampleTask(
        Adapter(placement="houlsby", bottleneck=48, activation="gelu"),
        "BANKING77 (Casanueva et al. 2020), PolyAI-LDN/task-specific-datasets@57ec275d",
        "CC BY 4.0",
        recipe={"start_c": 5.0, "epochs": 6, "peak_rate": 4e-3},
    ),
    "clinc150": ExampleTask(
        Lora(rank=8, alpha=16.0),
        "CLINC150 (Larson et al. 2019), in-scope rows, clinc/oos-eval@828f8093",
        "CC BY 3.0",
    ),
    "hwu64": ExampleTask(
        Diff(),
        "HWU64 (Liu et al. 2019), split of jianguoz/Few-Shot-Intent-Detection@fa955331",
        "CC BY 4.0",
        recipe={"dense_epochs": 1},
    ),
    "nlupp": ExampleTask(
        Ia3(),
        "NLU++ (Casanueva et al. 2022), both domains, PolyAI-LDN/task-specific-datasets@57ec275d",
        "CC BY 4.0",
        recipe={"start_c": 30.0, "epochs": 16},
    ),
    "sms_spam": ExampleTask(
        BitFit(),
        "SMS Spam Collection (Almeida et al. 2011), UCI; our own split",
        "CC BY 4.0 as stated by UCI",
        max_tokens=256,
        recipe={"epochs": 4},
    ),
    "snips": ExampleTask(
        Mask(),
        "Snips (Coucke et al. 2018), split of MiuLab/SlotGated-SLU@61f0307c",
        "CC0 1.0",
        recipe={"epochs": 2},
    ),
    "snips_slots": ExampleTask(
        Lora(rank=8, alpha=16.0),
        "Snips (Coucke et al. 2018), split of MiuLab/SlotGated-SLU@61f0307c",
        "CC0 1.0",
        recipe={"epochs": 3, "start_c": 30.0},
        kind="tagging",
    ),
    "stsb": ExampleTask(
        Lora(rank=8, alpha=16.0),
        "STS benchmark (Cer et al. 2017), English rows of PhilipMay/stsb-multi-mt@30de0dec",
        "scores CC BY-SA 4.0, texts of mixed origin: no rows are given here",
        recipe={"dropout": 0.0},
        levels=(1,),  # a regression is always answered by its last level
        has_sample=False,
    ),
    "wnut17": ExampleTask(
        Adapter(placement="pfeiffer", bottleneck=32, activation="gelu"),
        "WNUT 2017 (Derczynski et al. 2017), leondz/emerging_entities_17@e52a2d2a",
        "CC BY 4.0",
        recipe={"epochs": 5},
        kind="tagging",
    ),
}


def train_one(
    name: str, level: int, rows: Path, models_dir: Path, out: Path, changes: RecipeChanges
) -> None:
    """Train one level of one task into `out/<name>` and print its figures."""
    task = EXAMPLE_TASKS[name]
    train_rows, validation_rows = (
        read_rows(rows / name / f"{split}.jsonl", task.kind) for split in ("train", "validation")
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


def calibrate_one(name: str, rows: Path, settings: Settings, out: Path) -> None:
    """Fit the cascade of `out/<name>` and print what it does on the rows it was fitted to."""
    artifact = open_artifact(out / name)
    names = {level.backbone.name for level in artifact.description.levels}
    calibrated = calibrate_task(
        artifact,
        {backbone: find(backbone, settings.models_dir) for backbone in names},
        read_rows(rows / name / "calibration.jsonl", artifact.description.kind),
        level_logits=partial(engine_logits, figures_file=settings.figures_file),
    )
    _say(f"{name}: {calibrated.figures}")


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a script for people


def main(given: Sequence[str] | None = None) -> None:
    """Train what the options name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=Path, required=True, help="what prepare_data.py wrote")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tasks")
    parser.add_argument("--task", action="append", choices=sorted(EXAMPLE_TASKS))
    parser.add_argument("--level", action="append", type=int, choices=(0, 1))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--epochs", type=int, help="other than the recipes'")
    arguments = parser.parse_args(given)
    prepare_process(arguments.threads)
    changes: RecipeChanges = {} if arguments.epochs is None else {"epochs": arguments.epochs}
    settings = load_settings()
    for name in arguments.task or sorted(EXAMPLE_TASKS):
        for level in arguments.level or EXAMPLE_TASKS[name].levels:
            train_one(name, level, arguments.rows, settings.models_dir, arguments.out, changes)
        calibrate_one(name, arguments.rows, settings, arguments.out)
        if EXAMPLE_TASKS[name].has_sample:
            shutil.copyfile(
                arguments.rows / name / "sample.jsonl", arguments.out / name / "sample.jsonl"
            )


if __name__ == "__main__":
    main()
