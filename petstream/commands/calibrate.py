"""`petstream calibrate`: fit a task's cascade to labelled rows that were not trained on."""

import importlib.util
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from petstream.output import console, error_console, fail, print_json
from petstream.settings import load_settings
from tasks.artifact import open_artifact
from tasks.errors import TaskError
from workers.backbone_store import find
from workers.errors import BackboneError
from workers.precision import PrecisionChoice

if TYPE_CHECKING:
    from tasks.training.calibrate import CalibratedTask

app = typer.Typer()


@app.command()
def calibrate(
    task_dir: Annotated[Path, typer.Argument(help="Folder of the artifact.")],
    data: Annotated[Path, typer.Option(help="Labelled rows that were not trained on.")],
    target: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Accuracy to reach. Default: the last level's less .005."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the processor. Default: one per core.")
    ] = None,
    dtype: Annotated[
        PrecisionChoice,
        typer.Option(help="What the levels compute in; auto: as a worker on this machine would."),
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Fit temperatures, ensemble weights and the threshold; write them into task.json.

    The threshold is the optimum on these rows, without a statistical bound. The task's digest
    changes: register it again with `petstream tasks add`.

    Example: petstream calibrate my-task --data calibration.jsonl
    """
    for module in ("torch", "transformers", "scipy"):
        if importlib.util.find_spec(module) is None:
            fail(f"calibrating needs {module}: install the extra `worker` (petstream[worker])")
    try:
        calibrated = _calibrate(task_dir, data, target, threads, dtype)
    except (TaskError, BackboneError) as error:
        fail(str(error))
    document = _document(calibrated)
    if as_json:
        print_json(document)
    else:
        _print_table(document)


def _calibrate(
    task_dir: Path,
    data: Path,
    target: float | None,
    threads: int | None,
    dtype: PrecisionChoice,
) -> "CalibratedTask":
    # torch and transformers take seconds to import: only once the options are known to be good.
    from petstream.engine_logits import engine_logits
    from tasks.training.calibrate import calibrate_task
    from tasks.training.rows import read_rows
    from tasks.training.runtime import prepare_process

    prepare_process(threads)
    artifact = open_artifact(task_dir)
    rows = read_rows(data, artifact.description.kind)
    settings = load_settings()
    names = {level.backbone.name for level in artifact.description.levels}
    backbones = {name: find(name, settings.models_dir) for name in names}
    with error_console.status("reading") as status:
        return calibrate_task(
            artifact,
            backbones,
            rows,
            target,
            level_logits=partial(engine_logits, choice=dtype, figures_file=settings.figures_file),
            on_level=lambda level: status.update(f"level {level}: {len(rows.rows)} rows"),
        )


def _document(calibrated: "CalibratedTask") -> dict[str, Any]:
    description, figures = calibrated.artifact.description, calibrated.figures
    cascade = description.cascade
    assert cascade is not None
    return {
        "task": description.name,
        "digest": calibrated.artifact.digest,
        "rows": figures.num_rows,
        "target": cascade.target,
        "threshold": cascade.threshold,
        "decision_threshold": cascade.decision_threshold,
        "cascade_accuracy": figures.cascade_accuracy,
        "escalated_share": figures.escalated_share,
        "levels": [
            {
                "level": level.level,
                "backbone": level.backbone.name,
                "accuracy": figures.level_accuracies[index],
                "temperature": cascade.temperatures[index],
                "weight": cascade.ensemble_weights[index],
                "calibration_error_before": figures.errors_before[index],
                "calibration_error_after": figures.errors_after[index],
                "answered_share": figures.answered_shares[index],
            }
            for index, level in enumerate(description.levels)
        ],
    }


def _print_table(document: dict[str, Any]) -> None:
    table = Table(title=f"{document['task']}: {document['rows']} rows")
    for name in ("level", "accuracy", "answers", "temperature", "ECE before", "ECE after"):
        table.add_column(name, justify="left" if name == "level" else "right")
    for level in document["levels"]:
        table.add_row(
            f"{level['level']} {level['backbone']}",
            f"{level['accuracy']:.4f}",
            f"{level['answered_share']:.1%}",
            f"{level['temperature']:.3f}",
            f"{level['calibration_error_before']:.4f}",
            f"{level['calibration_error_after']:.4f}",
        )
    table.add_section()
    table.add_row("cascade", f"{document['cascade_accuracy']:.4f}", "", "", "", "")
    console.print(table)
    console.print(
        f"threshold {document['threshold']:.4f} for target {document['target']:.4f}: "
        f"{document['escalated_share']:.1%} of the rows go on from the first level; "
        f"new digest {document['digest'][:19]}",
        highlight=False,
    )
