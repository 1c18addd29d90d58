"""`petstream tasks`: the task registry, while serving."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from messages.errors import MessageError
from messages.task_event import TaskEvent, TaskRevision
from petstream.commands.task_compare import (
    Rows,
    as_document,
    compare_tasks,
    comparer,
    in_words,
)
from petstream.commands.task_import import export_task, import_task
from petstream.commands.task_run import run
from petstream.kafka_connection import broker_settings
from petstream.level_backbones import warn_of_other_backbone
from petstream.output import console, error_console, fail, print_json
from petstream.task_registry import TaskRegistry, task_registry
from tasks.bfloat16_record import comparisons_of
from tasks.errors import TaskError, UnknownTask
from tasks.store import TaskStore
from transport.errors import TransportError

app = typer.Typer(help="Add, list, show, alias, retire, import, export and run tasks.")
app.command("import")(import_task)
app.command("export")(export_task)
app.command()(run)
app.command("compare")(compare_tasks)

BootstrapServers = Annotated[str | None, typer.Option(help="Kafka, host:port.")]
Namespace = Annotated[str | None, typer.Option(help="Prefix of the topics.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Name = Annotated[str, typer.Argument(help="The task.")]


@app.command()
def add(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR", help="Folders that `petstream train` wrote.")
    ],
    compare: Annotated[
        bool | None,
        typer.Option(
            "--compare/--no-compare",
            help="Compare answers in bfloat16 with those in float32. Default: where this "
            "processor has bfloat16 and the folder does not say (`petstream tasks compare`).",
        ),
    ] = None,
    rows: Rows = None,
    bootstrap_servers: BootstrapServers = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """Validate tasks, copy them into the store and let the running services answer them.

    A task whose content is new gets its next revision, which becomes its default.

    Example: petstream tasks add examples/tasks/clinc150
    """
    with _registry(bootstrap_servers, namespace) as registry, comparer(rows) as comparing:
        added = []
        for folder in folders:
            with error_console.status(f"adding {folder}"):
                task = registry.add(folder, comparing.if_wanted(folder, compare))
            for level in task.artifact.description.levels:
                warn_of_other_backbone(task.event.name, level.level, level.backbone.name)
            revision = task.artifact.description.revision
            compared = comparisons_of(task.artifact)
            added.append(
                {
                    "revision": revision,
                    "digest": task.artifact.digest,
                    **_summary(task.event),
                    "bfloat16": [as_document(level) for level in compared],
                }
            )
            if not as_json:
                _say(f"{task.event.name}@{revision} serves; {_default(task.event)}")
                for comparison in compared:
                    _say(f"  {in_words(comparison)}")
    if as_json:
        print_json({"added": added})


@app.command("list")
def list_tasks(
    bootstrap_servers: BootstrapServers = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """Show the tasks that are registered.

    Example: petstream tasks list --json
    """
    with _registry(bootstrap_servers, namespace) as registry:
        events = [event for _, event in sorted(registry.topic.read().items())]
    if as_json:
        print_json({"tasks": [_summary(event) for event in events]})
        return
    table = Table("task", "state", "default", "kind", "outputs", "levels", "aliases")
    for event in events:
        default = event.revisions[-1]
        table.add_row(
            event.name,
            "retired" if event.retired else "serving",
            str(default.reference.revision),
            default.kind,
            _outputs(default),
            _levels(default),
            ", ".join(f"{alias}={revision}" for alias, revision in event.aliases),
        )
    console.print(table)


@app.command()
def show(
    name: Name,
    bootstrap_servers: BootstrapServers = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """Show a task's revisions, and what this machine's store has of them.

    Example: petstream tasks show clinc150
    """
    with _registry(bootstrap_servers, namespace) as registry:
        event = registry.topic.read().get(name)
        if event is None:
            raise UnknownTask(f"no task {name!r} is registered: see `petstream tasks list`")
        stored = [_stored(registry.store, revision) for revision in event.revisions]
    if as_json:
        revisions = [
            {**asdict(revision), "stored": found}
            for revision, found in zip(event.revisions, stored, strict=True)
        ]
        print_json({**_summary(event), "revisions": revisions})
        return
    _say(f"{name} is {'retired' if event.retired else 'serving'}; {_default(event)}")
    table = Table(
        *("revision", "kind", "outputs", "level", "backbone", "PET", "tokens", "bytes", "bfloat16")
    )
    for revision, found in zip(event.revisions, stored, strict=True):
        for level in revision.levels:
            table.add_row(
                str(revision.reference.revision),
                revision.kind,
                _outputs(revision),
                str(level.level),
                level.backbone,
                level.pet_kind,
                str(level.max_tokens),
                f"{found['bytes'][str(level.level)]:,}" if "bytes" in found else found["problem"],
                _bfloat16(found, level.level),
            )
    console.print(table)


@app.command()
def alias(
    name: Name,
    alias: Annotated[str, typer.Argument(help="Queries then ask for NAME:ALIAS.")],
    revision: Annotated[int, typer.Argument(min=1, help="The revision it means.")],
    bootstrap_servers: BootstrapServers = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """Give a revision of a task another name, or move that name to another revision.

    Example: petstream tasks alias clinc150 stable 2
    """
    with _registry(bootstrap_servers, namespace) as registry:
        event = registry.alias(name, alias, revision)
    if as_json:
        print_json(_summary(event))
    else:
        _say(f"{name}:{alias} is {name}@{revision}")


@app.command()
def retire(
    name: Name,
    bootstrap_servers: BootstrapServers = None,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """Take a task out of service: its queries are answered with the error TASK_RETIRED.

    `petstream tasks add` brings it back.

    Example: petstream tasks retire clinc150
    """
    with _registry(bootstrap_servers, namespace) as registry:
        event = registry.retire(name)
    if as_json:
        print_json(_summary(event))
    else:
        _say(f"{name} is retired; add it again to bring it back")


@contextmanager
def _registry(bootstrap_servers: str | None, namespace: str | None) -> Iterator[TaskRegistry]:
    """Yield the registry; what goes wrong with it ends the command with one line."""
    settings = broker_settings(bootstrap_servers, namespace)
    try:
        yield task_registry(settings)
    except (TaskError, TransportError, MessageError) as error:
        fail(f"{type(error).__name__}: {error}")


def _summary(event: TaskEvent) -> dict[str, Any]:
    default = event.revisions[-1]
    return {
        "name": event.name,
        "retired": event.retired,
        "default_revision": default.reference.revision,
        "kind": default.kind,
        "num_outputs": default.num_outputs,
        "takes_pair": default.takes_pair,
        "levels": [asdict(level) for level in default.levels],
        "aliases": dict(event.aliases),
        "num_revisions": len(event.revisions),
    }


def _stored(store: TaskStore, revision: TaskRevision) -> dict[str, Any]:
    """Return the store's folder and bytes of a revision, or why it has none that can be used."""
    try:
        artifact = store.open(revision.reference)
        sizes = {
            str(level.level): (artifact.folder / level.file).stat().st_size
            for level in artifact.description.levels
        }
    except (TaskError, OSError) as error:
        return {"problem": f"{type(error).__name__}: {error}"}
    return {
        "folder": str(artifact.folder),
        "bytes": sizes,
        "bfloat16": [as_document(level) for level in comparisons_of(artifact)],
    }


def _bfloat16(stored: dict[str, Any], level: int) -> str:
    """Return whether a level may run in bfloat16, in a word."""
    for found in stored.get("bfloat16", ()):
        if found["level"] == level:
            return "passes" if found["passes"] else "differs"
    return "not compared"


def _outputs(revision: TaskRevision) -> str:
    unit = " dims" if revision.kind == "embedding" else ""
    return f"{revision.num_outputs}{unit}"


def _levels(revision: TaskRevision) -> str:
    return ", ".join(
        f"{level.level}: {level.backbone} {level.pet_kind}" for level in revision.levels
    )


def _default(event: TaskEvent) -> str:
    return f"default is {event.name}@{event.revisions[-1].reference.revision}"


def _say(line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False)
