"""A namespace of one level on the run's broker, and services of its own for it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from messages.topics import TopicNames
from petstream.kafka_connection import kafka_settings
from petstream.settings import Settings, load_settings
from petstream.supervisor import ServiceSpec, Supervisor
from transport.topics import create_topics

READY_LIMIT_S = 300.0
SCHEDULER = ServiceSpec("scheduler-0", "scheduler", None, ("scheduler", "--levels", "0"))


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


@contextmanager
def single_level_services(
    settings: Settings, *worker_options: str, environment: Mapping[str, str] | None = None
) -> Iterator[Supervisor]:
    """Run a scheduler and a worker of one thread, from when they are ready.

    Args:
        settings: Of their namespace.
        worker_options: Of `petstream worker`, beside its level.
        environment: None: the settings'.
    """
    services = (
        SCHEDULER,
        ServiceSpec(
            "worker-0-0", "worker", 0, ("worker", "--level", "0", "--threads", "1", *worker_options)
        ),
    )
    supervisor = Supervisor(services, settings.state_dir, environment or settings.environment())
    supervisor.start()
    try:
        supervisor.wait_until_ready(READY_LIMIT_S)
        yield supervisor
    finally:
        supervisor.stop()
