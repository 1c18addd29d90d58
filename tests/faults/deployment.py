"""A real deployment to do harm to: embedded broker, scheduler and workers as processes."""

import json
import os
import signal
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from confluent_kafka import Consumer, TopicPartition

from messages.topics import TopicNames
from petstream.settings import Settings
from petstream.supervisor import ProcessStatus, ServiceSpec, Supervisor
from petstream.task_registry import task_registry
from tests.faults.topic_dump import dump_topic
from transport.deadline import Deadline
from transport.embedded_broker import EmbeddedBroker
from transport.settings import KafkaSettings
from transport.topics import create_topics
from workers.backbone_store import BackboneStore
from workers.levels import LEVEL_BACKBONES

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
READY_LIMIT_S = 120.0
PARTITIONS = 6

SCHEDULER = ServiceSpec("scheduler-0", "scheduler", None, ("scheduler",))
SMALL_WORKER = ServiceSpec("worker-0-0", "worker", 0, ("worker", "--level", "0", "--threads", "1"))
LARGE_WORKER = ServiceSpec("worker-1-0", "worker", 1, ("worker", "--level", "1", "--threads", "1"))


@dataclass(frozen=True, slots=True)
class ExampleTask:
    """A trained task of the repository and real texts for it."""

    name: str
    folder: Path
    texts: tuple[str, ...]


def example_tasks() -> list[ExampleTask]:
    """Return the tasks under `examples/tasks`."""
    tasks = []
    for sample in sorted(EXAMPLES.glob("*/sample.jsonl")):
        texts = tuple(json.loads(line)["text"] for line in sample.read_text().splitlines())
        tasks.append(ExampleTask(sample.parent.name, sample.parent, texts))
    return tasks


class Deployment:
    """Broker, topics, tasks and supervised services, in a folder of the test's own.

    The services are tended by whoever waits in one of the methods here: in between, what was
    killed stays dead.
    """

    def __init__(
        self,
        folder: Path,
        services: Sequence[ServiceSpec],
        *,
        namespace: str = "faults",
        retired: Collection[str] = (),
    ) -> None:
        """Describe a deployment.

        Args:
            folder: Everything it writes goes here.
            services: Its processes.
            namespace: Prefix of its topics.
            retired: Tasks that are registered and retired again.
        """
        self._namespace = namespace
        self._retired = retired
        self.broker = EmbeddedBroker(data_dir=folder / "broker")
        self.tasks = example_tasks()
        self._services = services
        self._folder = folder

    def __enter__(self) -> Self:
        self.settings = Settings(
            bootstrap_servers=self.broker.start(),
            namespace=self._namespace,
            tasks_dir=self._folder / "tasks",
            state_dir=self._folder / "state",
        )
        self.kafka = KafkaSettings(bootstrap_servers=self.broker.bootstrap_servers)
        self.topics = TopicNames(self.settings.namespace)
        try:
            store = BackboneStore(self.settings.models_dir)
            for backbone in LEVEL_BACKBONES.values():
                store.fetch(backbone)
            create_topics(
                self.kafka, self.topics, levels=tuple(LEVEL_BACKBONES), partitions=PARTITIONS
            )
            registry = task_registry(self.settings)
            self.artifacts = {task.name: registry.add(task.folder).artifact for task in self.tasks}
            for name in self._retired:
                registry.retire(name)
            self.supervisor = Supervisor(
                self._services, self.settings.state_dir, self.settings.environment()
            )
            self.supervisor.start()
            self.supervisor.wait_until_ready(READY_LIMIT_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "supervisor"):
            self.supervisor.stop()
        self.broker.stop()

    def stop_services(self) -> None:
        """Let the services drain and end."""
        self.supervisor.stop()

    def kill(self, name: str) -> int:
        """End a service with SIGKILL, once it serves; return the pid that it had.

        Its death is noticed before this returns: the next kill of the same service must not meet
        the process that is dead already.
        """
        self.wait_until_ready(name)
        status = self._status(name)
        assert status.pid is not None
        os.kill(status.pid, signal.SIGKILL)
        deadline = Deadline(READY_LIMIT_S)
        while self._status(name).restarts == status.restarts:
            self.tend()
            if deadline.has_passed:
                raise TimeoutError(f"the death of {name} was not noticed")
            time.sleep(0.01)
        return status.pid

    def _status(self, name: str) -> ProcessStatus:
        (status,) = (s for s in self.supervisor.statuses() if s.name == name)
        return status

    def kill_broker(self, down_s: float) -> None:
        """End the broker with SIGKILL and start it again on its port and data."""
        self.broker.kill()
        time.sleep(down_s)
        self.broker.restart()

    def wait_until_ready(self, name: str) -> None:
        """Tend the services until `name` serves.

        Raises:
            TimeoutError: If it does not.
        """
        deadline = Deadline(READY_LIMIT_S)
        while not any(s.name == name and s.state == "ready" for s in self.supervisor.statuses()):
            self.tend()
            if deadline.has_passed:
                raise TimeoutError(f"{name} does not serve: {self.log_of(name)}")
            time.sleep(0.05)

    def tend(self) -> None:
        """Start again what was found dead."""
        self.supervisor.tend()

    def log_of(self, name: str) -> str:
        """The last lines that a service wrote."""
        (status,) = (s for s in self.supervisor.statuses() if s.name == name)
        return "\n".join(Path(status.log).read_text(errors="replace").splitlines()[-20:])

    def unsettled(self, group: str, topic: str) -> list[str]:
        """Say where a group has not settled the last visible record of a partition."""
        last: dict[int, int] = {}
        for record in dump_topic(self.kafka, topic):
            last[record.partition] = record.offset
        # Asked by a consumer that never joins: the admin client's call for it is not reliable when
        # a coordinator has moved (librdkafka issue 5040).
        member = Consumer(self.kafka.reader(group=group))
        asked = [TopicPartition(topic, partition) for partition in last]
        committed = {tp.partition: tp.offset for tp in member.committed(asked, timeout=20)}
        member.close()
        return [
            f"{topic}/{partition}: committed {committed.get(partition)}, last record {offset}"
            for partition, offset in last.items()
            if committed.get(partition, -1) < offset + 1
        ]
