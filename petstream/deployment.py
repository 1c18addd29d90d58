"""A whole deployment on this machine: broker, topics, backbones, supervised services.

`petstream up` keeps one running, `petstream demo` makes a short-lived one.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from messages.topics import TopicNames
from petstream.backbone_download import fetch_with_progress
from petstream.kafka_connection import kafka_settings
from petstream.output import error_console
from petstream.settings import Settings
from petstream.supervisor import ServiceSpec, Supervisor
from petstream.task_registry import task_registry
from transport.embedded_broker import EmbeddedBroker
from transport.embedded_broker.running import announce, find_running, withdraw
from transport.embedded_broker.version import BrokerVersion, ask_version
from transport.errors import TransportError
from transport.topics import TopicCreated, create_topics, delete_topics
from workers.backbone_store import BackboneStore
from workers.levels import LEVEL_BACKBONES

PARTITIONS_PER_SCHEDULER = 4
BATCH_PARTITIONS_PER_WORKER = 4
"""A transaction pays for every partition that it writes to, in requests and in markers; on one
machine more of them would spread nothing."""
READY_LIMIT_S = 300.0
"""Of a loaded machine, which needs minutes to import torch in every worker."""


class NamespaceInUseError(Exception):
    """What should serve for a while would take the place of services that stay."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            f"namespace {settings.namespace} has topics at {settings.bootstrap_servers} already, "
            "and their services and tasks must not be replaced: name another --namespace, or use "
            "what serves there with --attach"
        )


@dataclass(frozen=True, slots=True)
class Shape:
    """How many processes of each kind."""

    schedulers: int = 1
    small_workers: int = 1
    large_workers: int = 1

    @property
    def workers_per_level(self) -> dict[int, int]:
        """Workers of each level."""
        return {0: self.small_workers, 1: self.large_workers}


def service_specs(shape: Shape) -> list[ServiceSpec]:
    """List the services of a deployment; their slots are stable from one start to the next."""
    specs = [
        ServiceSpec(f"scheduler-{number}", "scheduler", None, ("scheduler",))
        for number in range(shape.schedulers)
    ]
    for level, count in shape.workers_per_level.items():
        specs += [
            ServiceSpec(
                f"worker-{level}-{number}", "worker", level, ("worker", "--level", str(level))
            )
            for number in range(count)
        ]
    return specs


def fetch_backbones(models_dir: Path) -> None:
    """Fetch the backbones of both levels, unless they are there."""
    store = BackboneStore(models_dir)
    for name in LEVEL_BACKBONES.values():
        fetch_with_progress(store, name)


def make_topics(settings: Settings, shape: Shape) -> list[TopicCreated]:
    """Create the topics of the namespace that are missing; return what became of each."""
    return create_topics(
        kafka_settings(settings),
        TopicNames(settings.namespace),
        levels=tuple(LEVEL_BACKBONES),
        partitions=PARTITIONS_PER_SCHEDULER * shape.schedulers,
        batch_partitions=BATCH_PARTITIONS_PER_WORKER * max(shape.workers_per_level.values()),
    )


def publish_tasks(settings: Settings, folders: Iterable[Path]) -> None:
    """Put task artifacts into the store and register them.

    Raises:
        TaskError: If one is not valid.
        TransportError: If one cannot be registered.
    """
    registry = task_registry(settings)
    for folder in folders:
        registry.add(folder)


@contextmanager
def broker_for(
    settings: Settings, folder: Path
) -> Iterator[tuple[Settings, EmbeddedBroker | None]]:
    """Yield settings that name a broker: the user's own, or an embedded one that lives as long.

    Args:
        settings: Name a broker or not.
        folder: Where an embedded one keeps its data and is announced to other commands.

    Raises:
        EmbeddedBrokerError: If it cannot be started.
    """
    if settings.bootstrap_servers is not None:
        yield settings, None
        return
    broker = EmbeddedBroker(folder / "broker")
    with error_console.status("starting Apache Kafka"):
        bootstrap_servers = broker.start()
    try:
        announce(broker, folder)
        yield settings.with_flags(bootstrap_servers=bootstrap_servers), broker
    finally:
        announced = find_running(folder)
        broker.stop()
        if announced is not None:
            withdraw(folder, announced)


def revive(broker: EmbeddedBroker, folder: Path) -> bool:
    """Start the broker of `broker_for` again if it died; tell whether it had."""
    if broker.is_running():
        return False
    broker.restart()
    announce(broker, folder)
    return True


def supervisor_for(settings: Settings, shape: Shape, folder: Path) -> Supervisor:
    """Return a supervisor, not yet started, of every service.

    Args:
        settings: Of the services, which read this machine's profiles where `state_dir` says.
        shape: How many of each.
        folder: Where logs and health files go.
    """
    return Supervisor(service_specs(shape), folder, settings.environment())


@contextmanager
def serve_for_a_while(
    settings: Settings, task_folders: Iterable[Path], shape: Shape | None = None
) -> Iterator[tuple[Settings, BrokerVersion]]:
    """Run broker, scheduler and workers in a folder of their own, for the length of the block.

    Only the profiles are those of this machine. On a broker that the settings name, the topics are
    made for this and removed in the end.

    Yields:
        Settings that name the broker, and what the broker says of itself.

    Raises:
        NamespaceInUseError: If the namespace has topics already.
    """
    shape = shape or Shape()
    fetch_backbones(settings.models_dir)
    with tempfile.TemporaryDirectory(prefix="petstream-") as name:
        folder = Path(name)
        own = settings.with_flags(tasks_dir=folder / "tasks")
        with (
            broker_for(own, folder) as (served, broker),
            _topics_of_its_own(served, shape, lives_longer=broker is None),
        ):
            publish_tasks(served, task_folders)
            supervisor = supervisor_for(served, shape, folder)
            supervisor.start()
            try:
                with error_console.status("starting scheduler and workers"):
                    supervisor.wait_until_ready(READY_LIMIT_S)
                for process in supervisor.statuses():
                    error_console.print(f"{process.name} is ready (process {process.pid})")
                yield served, broker.version() if broker else _version(served)
            finally:
                supervisor.stop()


@contextmanager
def _topics_of_its_own(settings: Settings, shape: Shape, *, lives_longer: bool) -> Iterator[None]:
    """Make the namespace's topics; on a broker that lives longer, remove them after the block."""
    topics = make_topics(settings, shape)
    new = [topic.topic for topic in topics if topic.is_new]
    try:
        if len(new) < len(topics):
            raise NamespaceInUseError(settings)
        yield
    finally:
        if new and lives_longer:
            try:
                delete_topics(kafka_settings(settings), new)
            except TransportError as error:  # what ended the block is told, not this
                error_console.print(f"topics of {settings.namespace} stay: {error}")


def _version(settings: Settings) -> BrokerVersion:
    return ask_version(kafka_settings(settings).bootstrap_servers)
