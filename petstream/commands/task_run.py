"""`petstream tasks run`: one row through one level of one task, without Kafka."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petstream.answer_view import shortened
from petstream.output import console, error_console, fail, print_json
from petstream.settings import load_settings
from tasks.artifact import Artifact, open_artifact
from tasks.errors import ArtifactMissing, TaskError
from tasks.store import TaskStore
from workers.backbone_store import find
from workers.errors import BackboneError, RowError
from workers.precision import Precision

if TYPE_CHECKING:
    from workers.local_level import LocalAnswer


def run(
    task: Annotated[
        str,
        typer.Argument(metavar="NAME|DIR", help="A task of the store, NAME@REVISION, or a folder."),
    ],
    text: Annotated[str, typer.Option(help="The text.")],
    pair: Annotated[str | None, typer.Option(help="The second text of a pair.")] = None,
    level: Annotated[int, typer.Option(min=0, max=7, help="Which level answers.")] = 0,
    logits: Annotated[bool, typer.Option("--logits", help="Print the logits too.")] = False,
    dtype: Annotated[Precision, typer.Option(help="What is computed in.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Answer one text from the engine that serves, without Kafka.

    Example: petstream tasks run examples/tasks/banking77 --text "my card is lost" --logits
    """
    try:
        artifact = _open(task)
        with error_console.status("loading the backbone"):
            answered = _answer(artifact, level, text, pair, dtype)
    except (TaskError, BackboneError, RowError) as error:
        fail(f"{type(error).__name__}: {error}")
    document = _document(artifact, level, answered, with_logits=logits)
    if as_json:
        print_json(document)
    else:
        if answered.answer.embedding is not None:
            document["embedding"] = shortened(answered.answer.embedding)
        for name, value in document.items():
            console.print(f"{name}: {value}", soft_wrap=True, highlight=False, markup=False)


def _open(task: str) -> Artifact:
    if Path(task).is_dir():
        return open_artifact(Path(task))
    name, _, revision = task.partition("@")
    if "/" in task or (revision and not revision.isdecimal()):
        raise ArtifactMissing(f"no folder {task}, and no name of a task either: give one of both")
    return TaskStore(load_settings().tasks_dir).find(name, int(revision) if revision else None)


def _answer(
    artifact: Artifact, level: int, text: str, pair: str | None, dtype: Precision
) -> "LocalAnswer":
    # torch takes seconds to import: only once the task is known to be there.
    from workers.local_level import LocalLevel

    backbone = artifact.description.level(level).backbone.name
    settings = load_settings()
    local = LocalLevel(
        find(backbone, settings.models_dir),
        precisions=(dtype,),
        figures_file=settings.figures_file,
    )
    try:
        loaded = local.load(artifact, level)
        (answered,) = local.run([(loaded, text if pair is None else (text, pair))])
    finally:
        local.close()
    return answered


def _document(
    artifact: Artifact, level: int, answered: "LocalAnswer", *, with_logits: bool
) -> dict[str, Any]:
    description = artifact.description
    document: dict[str, Any] = {
        "task": description.name,
        "task_revision": description.revision,
        "digest": artifact.digest,
        "level": level,
        "num_tokens": answered.num_tokens,
        "confidence": answered.confidence,
    }
    if description.kind == "tagging":
        document["spans"] = [
            {"start": start, "end": end, "label": label} for start, end, label in answered.spans
        ]
    elif description.kind == "regression":
        document["value"] = answered.answer.value
    elif description.kind == "embedding":
        document["embedding"] = answered.answer.embedding
    else:
        document["labels"] = list(answered.answer.labels)
        document["scores"] = list(answered.answer.scores)
    if with_logits:
        document["logits"] = answered.logits.tolist()
    return document
