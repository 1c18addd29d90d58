"""A worker whose engine is a device's answers through Kafka as one on the cores does.

The CPU stands for the device: references of the grouped operators compute, and tasks run from
copies that the task manager made for the device.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from messages.query import QueryParameters
from messages.result import Result
from messages.topics import TopicNames
from petstream.kafka_connection import kafka_settings
from petstream.settings import Settings
from petstream.supervisor import Supervisor
from petstream.task_registry import task_registry
from producers.client import Client
from producers.connection import Connection
from producers.new_query import new_query
from tasks.artifact import open_artifact
from tests.kept_figures import kept_figures
from tests.petstream.single_level import READY_LIMIT_S, SCHEDULER, single_level_settings
from tests.producers.stand_in import wait_until
from transport.health import read_health
from workers.backbone_store import find
from workers.grouped.on_device import OnDevice
from workers.local_level import LocalAnswer, LocalLevel
from workers.service import run_worker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
BACKBONE = "minilm-l3"
TEXTS = {
    "banking77": ("my card was stolen", "where is my money"),
    "nlupp": ("I want to change my booking for two adults", "how much do I spend a month"),
    "sms_spam": ("call now to claim your prize", "see you at lunch"),
    "snips_slots": ("play some jazz by Miles Davis", "book a table for two in Rome tomorrow"),
}
LEVEL = QueryParameters(level=0)
ANSWER_LIMIT_S = 120.0
TOLERANCE = 1e-4


@pytest.fixture
def settings(broker: str, namespace: str, tmp_path: Path) -> Settings:
    """Settings of a namespace that knows the examples."""
    settings = single_level_settings(broker, namespace, tmp_path)
    registry = task_registry(settings)
    for name in TEXTS:
        registry.add(EXAMPLES / name)
    return settings


@contextmanager
def device_worker(settings: Settings) -> Iterator[None]:
    """Run a scheduler, and in this process a worker on a device, from when they are ready."""
    stop, health = threading.Event(), settings.state_dir / "device-worker.json"
    supervisor = Supervisor((SCHEDULER,), settings.state_dir, settings.environment())
    supervisor.start()
    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(
            run_worker,
            kafka=kafka_settings(settings),
            topics=TopicNames(settings.namespace),
            level=0,
            backbone=BACKBONE,
            models_dir=settings.models_dir,
            tasks_dir=settings.tasks_dir,
            slot="device-0",
            threads=None,
            precision="float32",
            on_device=OnDevice(torch.device("cpu"), num_streams=2),
            device_memory_bytes=64 << 20,
            figures_file=settings.figures_file,
            merged_bytes=0,
            task_memory_bytes=64 << 20,
            pinned_tasks=(),
            recent_tasks_file=settings.state_dir / "recent.json",
            health_file=health,
            stop=stop,
        )
        try:
            supervisor.wait_until_ready(READY_LIMIT_S)
            wait_until(lambda: worker.done() or is_ready(health), READY_LIMIT_S)
            yield
        finally:
            stop.set()
            worker.result()
            supervisor.stop()


def is_ready(health: Path) -> bool:
    """Return whether the worker said so."""
    found = read_health(health)
    return found is not None and found.is_ready


def on_the_cores(settings: Settings) -> dict[tuple[str, str], LocalAnswer]:
    """Return each text's answer without Kafka and without a device."""
    level = LocalLevel(find(BACKBONE, settings.models_dir), threads=1, figures_file=kept_figures())
    try:
        loaded = {name: level.load(open_artifact(EXAMPLES / name), 0) for name in TEXTS}
        asked = [(name, text) for name, texts in TEXTS.items() for text in texts]
        found = level.run([(loaded[name], text) for name, text in asked], LEVEL)
    finally:
        level.close()
    return dict(zip(asked, found, strict=True))


def test_a_device_answers_what_the_cores_answer(settings: Settings) -> None:
    """One label, several labels and spans, of several kinds of PETs."""
    expected = on_the_cores(settings)
    asked = [new_query(task, text, parameters=LEVEL) for task, text in expected]

    with (
        device_worker(settings),
        Client(Connection(kafka_settings(settings), settings.namespace)) as client,
    ):
        found = list(client.ask_many(asked, timeout_s=ANSWER_LIMIT_S))

    for wanted, answer in zip(expected.values(), found, strict=True):
        assert isinstance(answer, Result), answer
        assert answer.labels == wanted.answer.labels
        assert answer.scores == pytest.approx(wanted.answer.scores, abs=TOLERANCE)
        assert (answer.tags or ()) == wanted.spans
