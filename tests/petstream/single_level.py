"""A namespace of one level on the run's broker, for tests that start services of their own."""

from pathlib import Path

from messages.topics import TopicNames
from petstream.kafka_connection import kafka_settings
from petstream.settings import Settings, load_settings
from transport.topics import create_topics


def single_level_settings(
    broker: str,
    namespace: str,
    folder: Path,
    *,
    partitions: int = 1,
    models_dir: Path | None = None,
) -> Settings:
    """Return settings of a namespace whose topics are there.

    Args:
        broker: Bootstrap servers.
        namespace: Of the test alone.
        folder: Where task store and state lie.
        partitions: Of every topic.
        models_dir: None: this machine's.
    """
    settings = Settings(
        bootstrap_servers=broker,
        namespace=namespace,
        models_dir=models_dir or load_settings().models_dir,
        tasks_dir=folder / "tasks",
        state_dir=folder / "state",
    )
    create_topics(
        kafka_settings(settings), TopicNames(namespace), levels=(0,), partitions=partitions
    )
    return settings
