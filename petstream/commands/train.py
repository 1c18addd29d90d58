"""`petstream train`: a PET on a frozen backbone, from labelled rows."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from messages.task_event import TaskKind
from petstream.level_backbones import warn_of_other_backbone
from petstream.output import console, error_console, fail, print_json, warn
from petstream.settings import load_settings
from tasks.artifact import Artifact, open_artifact
from tasks.artifact_writer import add_level, write_artifact
from tasks.errors import TaskError
from tasks.pets.bottleneck import Placement
from tasks.pets.kinds import PET_KINDS, AnyPet
from tasks.site_ops import Activation
from workers.backbone_store import find
from workers.errors import BackboneError

if TYPE_CHECKING:
    from tasks.training.level import LevelOutcome
    from tasks.training.recipes import RecipeChanges
    from tasks.training.rows import LabelledRows
    from tasks.training.trainer import OnStep

app = typer.Typer()

_OWN_KINDS = ("adapter", "bitfit", "diff", "ia3", "lora", "mask")


def trainable_kinds() -> tuple[str, ...]:
    """Return the kinds that have a recipe: ours, and those of others that can be injected."""
    others = (name for name, kind in PET_KINDS.items() if hasattr(kind, "inject"))
    return (*_OWN_KINDS, *others)


@app.command()
def train(
    kind: Annotated[str, typer.Option(help=f"Which PET: {', '.join(trainable_kinds())}.")],
    backbone: Annotated[str, typer.Option(help="Name of a fetched backbone.")],
    data: Annotated[Path, typer.Option(help="Training rows: .jsonl or .csv.")],
    out: Annotated[Path, typer.Option(help="Folder of the artifact.")],
    task: Annotated[str | None, typer.Option(help="Task's name. Default: the folder's.")] = None,
    level: Annotated[int, typer.Option(min=0, max=7, help="0 is the small level.")] = 0,
    add_new: Annotated[
        bool, typer.Option("--add-level", help="Put the level into the artifact in --out.")
    ] = False,
    replace_old: Annotated[
        bool, typer.Option("--replace-level", help="The same, in place of the level it has.")
    ] = False,
    label_kind: Annotated[
        TaskKind | None, typer.Option(help="Default: by the rows' field; tagging must be named.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Rows that choose the epoch. Default: held out of --data.")
    ] = None,
    held_out: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share to hold out without --validation.")
    ] = 0.1,
    test: Annotated[Path | None, typer.Option(help="Rows that only the report is about.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: by kind.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Peak learning rate. Default: by kind.")
    ] = None,
    start_c: Annotated[
        float | None,
        typer.Option(help="C of the logistic regression the head starts at. Default: 1."),
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Rows per batch. Default: 64.")] = None,
    seed: Annotated[int, typer.Option(help="Of split, initialisation and order.")] = 0,
    max_tokens: Annotated[int, typer.Option(min=3, help="Longer rows are cut here.")] = 128,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the processor. Default: one per core.")
    ] = None,
    rank: Annotated[int, typer.Option(help="lora: rank.")] = 8,
    alpha: Annotated[float, typer.Option(help="lora: alpha.")] = 16.0,
    placement: Annotated[Placement, typer.Option(help="adapter: placement.")] = "houlsby",
    bottleneck: Annotated[int, typer.Option(help="adapter: bottleneck.")] = 32,
    activation: Annotated[Activation, typer.Option(help="adapter: activation.")] = "gelu",
    dense_epochs: Annotated[
        int | None, typer.Option(help="diff: epochs before the cut. Default: 2.")
    ] = None,
    kept_share: Annotated[
        float | None, typer.Option(help="diff: share of the weights changed. Default: .005.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Where the rows come from.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the rows.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train a PET and head on a frozen backbone; write artifact and report.json.

    Rows are JSONL {"text", "text_pair"?, "label" | "labels" | "value"} or CSV with a header
    (text,label). The report compares with logistic regression on the frozen backbone.

    Example: petstream train --kind lora --backbone minilm-l3 --data rows.jsonl --out my-task
    """
    if kind not in trainable_kinds():
        fail(f"no recipe for kind {kind}: --kind is {', '.join(trainable_kinds())}", code=2)
    _check_installed()
    if add_new or replace_old:
        if task is not None or source is not None or licence is not None:
            fail("--task, --source and --licence are those of the artifact: leave them out", code=2)
        if not (out / "task.json").is_file():
            fail(f"no artifact in {out}: leave --add-level out to make one", code=2)
    elif out.exists():
        fail(f"{out} is there already: give another --out, or --add-level to add to it", code=2)
    hyperparameters: dict[str, dict[str, Any]] = {
        "lora": {"rank": rank, "alpha": alpha},
        "adapter": {"placement": placement, "bottleneck": bottleneck, "activation": activation},
    }
    try:
        existing = None
        if add_new or replace_old:
            existing = open_artifact(out)
            _check_level(existing, level, add_new=add_new, replace_old=replace_old)
        pet = _ANY_PET.validate_python({"kind": kind, **hyperparameters.get(kind, {})})
        changes: RecipeChanges = {
            "epochs": epochs,
            "peak_rate": rate,
            "start_c": start_c,
            "rows_per_batch": batch,
            "seed": seed,
            "dense_epochs": dense_epochs,
            "kept_share": kept_share,
        }
        outcome, rows, labels = _train(
            pet=pet,
            changes=changes,
            backbone=backbone,
            level=level,
            max_tokens=max_tokens,
            threads=threads,
            data=data,
            validation=validation,
            held_out=held_out,
            test=test,
            label_kind=label_kind,
            existing=existing,
        )
        if existing is not None:
            artifact = add_level(out, outcome.trained)
        else:
            artifact = write_artifact(
                out,
                name=task or out.name,
                kind=rows.kind,
                labels=labels,
                takes_pair=rows.takes_pair,
                source=source or rows.origin,
                licence=licence or "not stated",
                levels=[outcome.trained],
            )
    except (TaskError, BackboneError) as error:
        fail(str(error))
    except ValidationError as error:
        first = error.errors()[0]
        fail(f"{'.'.join(map(str, first['loc']))}: {first['msg']}: {str(first['input'])[:60]!r}")
    from tasks.training.reports import write_report

    write_report(out, level, outcome.report)
    warn_of_other_backbone(artifact.description.name, level, backbone)
    if existing is not None and existing.description.cascade is not None:
        warn(f"cascade dropped: calibrate again with `petstream calibrate {out}`")
    document = {"artifact": str(out), "digest": artifact.digest} | outcome.report
    if as_json:
        print_json(document)
    else:
        _print_report(document)


_ANY_PET: TypeAdapter[AnyPet] = TypeAdapter(AnyPet)


def _check_level(artifact: Artifact, level: int, *, add_new: bool, replace_old: bool) -> None:
    """End the command unless the level is to be added and not there, or replaced and there."""
    if artifact.description.kind == "embedding":
        fail(f"{artifact.folder} is an embedding, which has one level and is not trained here")
    there = any(described.level == level for described in artifact.description.levels)
    if there and not replace_old:
        fail(
            f"{artifact.folder} has a level {level}: give another --level, or --replace-level",
            code=2,
        )
    if not there and not add_new:
        fail(f"{artifact.folder} has no level {level}: give --add-level to add it", code=2)


def _check_installed() -> None:
    for module in ("torch", "transformers", "sklearn"):
        if importlib.util.find_spec(module) is None:
            fail(f"training needs {module}: install the extra `worker` (petstream[worker])")


def _train(
    *,
    pet: AnyPet,
    changes: "RecipeChanges",
    backbone: str,
    level: int,
    max_tokens: int,
    threads: int | None,
    data: Path,
    validation: Path | None,
    held_out: float,
    test: Path | None,
    label_kind: TaskKind | None,
    existing: Artifact | None,
) -> "tuple[LevelOutcome, LabelledRows, tuple[str, ...]]":
    # torch and transformers take seconds to import: only once the options are known to be good.
    from tasks.training.recipes import recipe_for
    from tasks.training.rows import read_rows
    from tasks.training.splits import hold_out

    recipe = recipe_for(pet, **changes)
    folder = find(backbone, load_settings().models_dir)
    rows = read_rows(data, label_kind)
    labels = rows.label_set()
    if existing is not None:
        labels = existing.description.labels
        rows.check_labels_known(labels)
    if validation is None:
        train_rows, validation_rows = hold_out(rows, held_out, recipe.seed)
    else:
        train_rows, validation_rows = rows, read_rows(validation, label_kind)
    validation_rows.check_labels_known(labels)
    test_rows = None if test is None else read_rows(test, label_kind)
    if test_rows is not None:
        test_rows.check_labels_known(labels)

    from tasks.training.level import LevelPlan, pooling_for, train_level
    from tasks.training.runtime import prepare_process

    prepare_process(threads)
    plan = LevelPlan(
        backbone_name=backbone,
        backbone=folder,
        level=level,
        pet=pet,
        recipe=recipe,
        pooling=pooling_for(rows.kind),
        max_tokens=max_tokens,
    )
    with _progress_bar() as on_step:
        outcome = train_level(
            plan, train_rows, validation_rows, labels, test_rows=test_rows, on_step=on_step
        )
    return outcome, rows, labels


@contextmanager
def _progress_bar() -> "Iterator[OnStep]":
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(
        *columns, console=error_console, disable=not error_console.is_terminal
    ) as progress:
        bar = progress.add_task("fitting the linear probe", total=None, loss="")

        def on_step(done: int, planned: int, value: float) -> None:
            progress.update(
                bar, description="training", completed=done, total=planned, loss=f"loss {value:.3f}"
            )

        yield on_step


def _print_report(document: dict[str, Any]) -> None:
    pet = document["pet"]["kind"]
    table = Table(title=f"{pet} on {document['backbone']}: {document['artifact']}")
    table.add_column("rows")
    table.add_column("figure")
    table.add_column(pet, justify="right")
    table.add_column("linear probe", justify="right")
    for split in ("validation", "test"):
        for name, value in document.get(split, {}).items():
            probe = document[f"{split}_linear_probe"].get(name)
            shown = "" if probe is None else f"{probe:.4f}"
            table.add_row(f"{split} ({document[f'{split}_rows']})", name, f"{value:.4f}", shown)
    console.print(table)
    console.print(
        f"{document['trainable_weights']:,} trainable weights, {document['train_rows']} rows, "
        f"{document['seconds']:.0f} s, best epoch {document['best_epoch']}",
        highlight=False,
    )
