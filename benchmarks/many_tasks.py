"""Very many real tasks, made cheaply: artifacts that share their weight files, and their events."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from confluent_kafka import Producer

from messages.task_event_codec import encode_task_event
from messages.topics import TopicNames
from petstream.benchmarks.task_copies import copy_under
from tasks.artifact import Artifact, open_artifact
from tasks.artifact_writer import TrainedLevel, write_artifact
from tasks.description import BackboneReference
from tasks.registry import add_revision, revision_of
from tests.workers.pets import random_task
from transport.settings import KafkaSettings
from workers.backbone import Backbone


def make_tasks(
    root: Path, names: Sequence[str], variant: str, backbones: Sequence[Backbone], seed: int = 0
) -> list[Artifact]:
    """Put tasks of one kind into a store.

    Args:
        root: Of the store.
        names: Of the tasks.
        variant: Of `tests.workers.pets`.
        backbones: Of the tasks' levels, the small one first.
        seed: Of the random weights.
    """
    first = root / names[0] / "1"
    first.parent.mkdir(parents=True, exist_ok=True)
    levels = []
    for level, backbone in enumerate(backbones):
        task = random_task(variant, backbone.shape, seed=seed)
        levels.append(
            TrainedLevel(
                level=level,
                backbone=BackboneReference(name=backbone.name, digest=backbone.digest),
                shape=backbone.shape,
                pet=task.pet,
                pooling=task.pooling,
                max_tokens=128,
                head_weight=task.head_weight,
                head_bias=task.head_bias,
                tensors=task.dense,
            )
        )
    write_artifact(
        first,
        name=names[0],
        kind="single_label",
        labels=[f"label-{number}" for number in range(len(task.head_bias))],
        takes_pair=False,
        source="random",
        licence="none",
        levels=levels,
    )
    model = open_artifact(first)
    others = [copy_under(name, model, root) for name in names[1:]]
    return [open_artifact(root, (names[0], "1")), *others]


def register(kafka: KafkaSettings, topics: TopicNames, artifacts: Iterable[Artifact]) -> int:
    """Publish the event of each artifact, as `petstream tasks add` would; return all their bytes.

    That command makes sure of each change by itself, which takes too long for ten thousand.
    """
    producer = Producer(kafka.query_producer())
    num_bytes = 0
    for artifact in artifacts:
        message = encode_task_event(add_revision(None, revision_of(artifact)))
        num_bytes += len(message.value)
        producer.produce(
            topics.tasks,
            message.value,
            key=artifact.description.name.encode(),
            headers=list(message.headers),
        )
        producer.poll(0)
    if producer.flush(60):
        raise RuntimeError("the broker did not take every event")
    return num_bytes
