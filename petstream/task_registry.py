"""Registers tasks while services run: the store, the backbones and the `tasks` topic together.

A task is in the store before it is on the topic, so that no worker hears of a task that it cannot
load. Every change may be made again after a failure: it then has no further effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from messages.task_event import TaskEvent
from messages.topics import TopicNames
from petstream.kafka_connection import kafka_settings
from petstream.settings import Settings
from petstream.task_topic import TaskTopic
from tasks.artifact import Artifact, open_artifact
from tasks.backbone_shape import BackboneShape, backbone_digest
from tasks.bfloat16_record import LevelComparison, comparisons_of
from tasks.description import TaskDescription
from tasks.errors import BackboneMismatch, BackboneUnknown
from tasks.registry import add_revision, retire, revision_of, set_alias
from tasks.store import TaskStore
from workers.backbone_config import read_config
from workers.backbone_store import find
from workers.errors import BackboneError


@dataclass(frozen=True, slots=True)
class AddedTask:
    """A task that serves now."""

    artifact: Artifact
    """In the store."""
    event: TaskEvent
    """On the topic."""


class TaskRegistry:
    """Adds, names and retires tasks."""

    def __init__(self, topic: TaskTopic, store: TaskStore, models_dir: Path) -> None:
        self.topic = topic
        self.store = store
        self._models_dir = models_dir

    def add(self, folder: Path, compared: Sequence[LevelComparison] = ()) -> AddedTask:
        """Validate an artifact, put it into the store and register it.

        Args:
            folder: The artifact's.
            compared: What was found of its levels in bfloat16. Empty: what the folder says.

        Raises:
            TaskError: One of its subclasses, if the artifact is not valid or cannot be stored.
            TransportError: If it cannot be registered; it lies in the store then.
        """
        source = open_artifact(folder)
        shapes = shapes_of(source.description, self._models_dir)
        # Before the broker is asked for anything.
        source.validate(shapes)
        compared = compared or comparisons_of(source)
        stored: list[Artifact] = []

        def make(current: TaskEvent | None) -> TaskEvent:
            revisions = () if current is None else current.revisions
            registered = {known.reference.revision: known.reference.digest for known in revisions}
            artifact = self.store.add(folder, shapes, registered=registered)
            stored.append(artifact)
            if compared:
                self.store.record_comparison(artifact, compared)
            return add_revision(current, revision_of(artifact))

        event = self.topic.change(source.description.name, make)
        return AddedTask(stored[-1], event)

    def alias(self, name: str, alias: str, revision: int) -> TaskEvent:
        """Let `name:alias` mean a revision.

        Raises:
            RegistryError: One of its subclasses, if that cannot be.
            TransportError: If it cannot be registered.
        """
        return self.topic.change(name, lambda now: set_alias(now, name, alias, revision))

    def retire(self, name: str) -> TaskEvent:
        """Take a task out of service.

        Raises:
            UnknownTask: If it was never registered.
            TransportError: If that cannot be registered.
        """
        return self.topic.change(name, lambda now: retire(now, name))


def task_registry(settings: Settings) -> TaskRegistry:
    """Return the registry that the settings name.

    Raises:
        typer.Exit: If no broker is named.
    """
    topic = TaskTopic(kafka_settings(settings), TopicNames(settings.namespace))
    return TaskRegistry(topic, TaskStore(settings.tasks_dir), settings.models_dir)


def shapes_of(description: TaskDescription, models_dir: Path) -> dict[str, BackboneShape]:
    """Return the shapes of a task's backbones, whose weights are those it was trained on.

    Raises:
        BackboneUnknown: If one is not on this machine, or cannot be used.
        BackboneMismatch: If one has other weights than those the task was trained on.
    """
    shapes = {}
    for level in description.levels:
        name = level.backbone.name
        try:
            folder = find(name, models_dir)
            shapes[name] = read_config(folder).shape
        except BackboneError as error:
            raise BackboneUnknown(f"level {level.level} of {description.name}: {error}") from error
        digest = backbone_digest(folder)
        if digest != level.backbone.digest:
            raise BackboneMismatch(
                f"level {level.level} of {description.name} was trained on other weights "
                f"({level.backbone.digest[:19]}) than {folder} has ({digest[:19]}): "
                f"train it on these, or put the others there"
            )
    return shapes
