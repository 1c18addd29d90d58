"""`petstream tasks import` and `export`: checkpoints of other libraries in, and out again."""

import shutil
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import ValidationError

from messages.errors import MessageError
from messages.task_event import TaskKind
from messages.truncation import Truncation
from messages.validation_fault import first_fault
from petstream.import_view import import_report, show_import
from petstream.kafka_connection import broker_settings
from petstream.output import console, error_console, fail, print_json
from petstream.settings import BadSettings, load_settings
from petstream.task_registry import task_registry
from tasks.artifact import Artifact, open_artifact
from tasks.errors import TaskError
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.importing import (
    ImportOptions,
    import_checkpoint,
)
from tasks.importers.peft.export import export_peft
from tasks.importers.weight_changes import DeltaMethod, DeltaOptions
from tasks.pets.pet import StoredFloat
from tasks.store import TaskStore
from transport.errors import TransportError
from workers.backbone_catalogue import CATALOGUE
from workers.backbone_store import find
from workers.errors import BackboneError
from workers.levels import LEVEL_BACKBONES

ExportFormat = Literal["petstream", "peft"]
Pooling = Literal["mean", "cls"]

_MAX_LABELS_BYTES = 32 << 20


def import_task(
    path: Annotated[Path, typer.Argument(help="Folder of a checkpoint.")],
    name: Annotated[
        str | None, typer.Option(help="The task's name; default: the folder's.")
    ] = None,
    level: Annotated[int, typer.Option(min=0, max=7, help="Level that the backbone serves.")] = 0,
    backbone: Annotated[
        str | None, typer.Option(help="Backbone it was trained on; default: the level's.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="a,b,c or a file with one a line, in the head's order.")
    ] = None,
    kind: Annotated[TaskKind | None, typer.Option(help="Of the task, if it is not told.")] = None,
    head: Annotated[
        Path | None, typer.Option(help="Weight file with the head, where it lies elsewhere.")
    ] = None,
    pooling: Annotated[
        Pooling | None,
        typer.Option(help="How an embedding pools; what a head of one layer in --head reads."),
    ] = None,
    normalise: Annotated[
        bool | None,
        typer.Option(
            "--normalise/--no-normalise",
            help="Give an embedding's vectors length 1; default: as its modules do, else not.",
        ),
    ] = None,
    delta: Annotated[
        DeltaMethod, typer.Option(help="How the change of a full fine-tune is kept.")
    ] = "auto",
    rank: Annotated[int, typer.Option(min=1, max=1024, help="Of --delta low-rank.")] = 16,
    density: Annotated[
        float, typer.Option(min=0.0001, max=1.0, help="Share that --delta sparse keeps.")
    ] = 0.01,
    max_tokens: Annotated[int | None, typer.Option(min=3, help="Most tokens of a row.")] = None,
    truncation: Annotated[
        Truncation, typer.Option(help="What becomes of a longer text: see docs/tasks.md.")
    ] = "head",
    dtype: Annotated[
        StoredFloat | None, typer.Option(help="Default: float16 where that loses nothing.")
    ] = None,
    takes_pair: Annotated[bool, typer.Option("--pair", help="A query is two texts.")] = False,
    source: Annotated[str | None, typer.Option(help="Where its training rows come from.")] = None,
    licence: Annotated[str | None, typer.Option(help="Of those rows.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: ./NAME.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace that folder.")] = False,
    add: Annotated[bool, typer.Option("--add", help="Register it too, as `tasks add`.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be taken; write nothing.")
    ] = False,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka, host:port.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Prefix of the topics.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make a task of a checkpoint of PEFT, AdapterHub, OpenDelta, (sentence-)transformers.

    Example: petstream tasks import ./my-lora --backbone bert-base --labels no,yes --dry-run
    """
    name = name or path.resolve().name.lower()
    backbone = backbone or LEVEL_BACKBONES.get(level)
    if backbone is None:
        fail(f"level {level} has no backbone of its own: name one with `--backbone`", code=2)
    if normalise is not None and kind not in (None, "embedding"):
        fail(f"a {kind} has no vector to normalise: leave `--normalise` out", code=2)
    folder = out or Path(name)
    if not dry_run and folder.resolve() == path.resolve():
        fail(f"{folder} is the checkpoint itself: give `--name` or `--out`", code=2)
    known = CATALOGUE.get(backbone)
    options = ImportOptions(
        level=level,
        labels=_labels(labels),
        kind=kind,
        head=head,
        pooling=pooling,
        normalise=normalise,
        max_tokens=max_tokens,
        truncation=None if truncation == "head" else truncation,
        delta=DeltaOptions(delta, rank, density),
        dtype=dtype,
        backbone_names=frozenset({known.hub_id} if known else ()),
    )
    artifact = None
    try:
        with error_console.status(f"reading {path}"):
            tensors = BackboneTensors(find(backbone, load_settings().models_dir))
            found = import_checkpoint(path, tensors, options)
            if not dry_run:
                artifact = found.write(
                    folder,
                    name=name,
                    takes_pair=takes_pair,
                    source=source,
                    licence=licence,
                    overwrite=overwrite,
                )
        revision = _register(artifact, bootstrap_servers, namespace) if add and artifact else None
    except (TaskError, TransportError, MessageError, BackboneError, BadSettings) as error:
        fail(f"{type(error).__name__}: {error}")
    except ValidationError as error:
        fail(f"{first_fault(error, 'task')}: choose another with its option", code=2)
    if as_json:
        print_json(import_report(found, artifact, revision))
        return
    show_import(found, name)
    if artifact is not None:
        console.print(f"written to {artifact.folder}", soft_wrap=True, highlight=False)
        if revision is not None:
            line = f"{name}@{revision} serves"
        else:
            line = f"put it into service with: petstream tasks add {artifact.folder}"
        console.print(line, soft_wrap=True, highlight=False)


def export_task(
    task: Annotated[str, typer.Argument(help="A task's folder, or the name of one in the store.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    export_format: Annotated[
        ExportFormat, typer.Option("--format", help="petstream: as is; peft: for PEFT to load.")
    ] = "petstream",
    level: Annotated[int | None, typer.Option(min=0, max=7, help="Of peft; default: 0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a task of the store, or a task's folder, elsewhere or for PEFT.

    Example: petstream tasks export clinc150 --out ./clinc150-peft --format peft
    """
    try:
        settings = load_settings()
        artifact = _find(task, TaskStore(settings.tasks_dir))
        if export_format == "petstream":
            _copy(artifact, out)
        else:
            number = artifact.description.levels[0].level if level is None else level
            name = artifact.description.level(number).backbone.name
            export_peft(artifact, number, BackboneTensors(find(name, settings.models_dir)), out)
    except (TaskError, BackboneError, BadSettings) as error:
        fail(f"{type(error).__name__}: {error}")
    except OSError as error:
        fail(f"{out} cannot be written ({error.strerror}): choose another folder")
    if as_json:
        print_json({"folder": str(out), "format": export_format, "digest": artifact.digest})
    else:
        console.print(f"written to {out}", soft_wrap=True, highlight=False)


def _labels(given: str | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    path = Path(given)
    if not path.is_file():
        return tuple(label.strip() for label in given.split(","))
    if path.stat().st_size > _MAX_LABELS_BYTES:
        fail(f"{path} is larger than any list of labels", code=2)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path} cannot be read as text ({error})", code=2)
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _register(artifact: Artifact, bootstrap_servers: str | None, namespace: str | None) -> int:
    registry = task_registry(broker_settings(bootstrap_servers, namespace))
    return registry.add(artifact.folder).artifact.description.revision


def _find(task: str, store: TaskStore) -> Artifact:
    """Open a folder, or the store's newest revision of a name."""
    folder = Path(task)
    if (folder / "task.json").is_file():
        return open_artifact(folder)
    return store.find(task)


def _copy(artifact: Artifact, out: Path) -> None:
    out.mkdir(parents=True)
    for name in ("task.json", *(level.file for level in artifact.description.levels)):
        shutil.copyfile(artifact.folder / name, out / name)
