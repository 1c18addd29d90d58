"""Starts of real processes with few and with very many tasks registered."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.many_tasks import make_tasks, register
from messages.query import QueryParameters
from messages.task_event import TaskReference
from messages.topics import TopicNames
from petstream.commands.worker import recent_tasks_file
from petstream.settings import Settings
from producers.client import Client
from producers.connection import Connection
from producers.new_query import new_query
from tasks.artifact import Artifact
from transport.embedded_broker import EmbeddedBroker
from transport.health import read_health
from transport.settings import KafkaSettings
from transport.topics import create_topics
from workers.backbone import Backbone
from workers.backbone_store import find
from workers.levels import LEVEL_BACKBONES
from workers.recent_tasks import RecentTasks

REGISTERED = (0, 100, 10_000)
IN_USE = 50
MEMORY_MIB = 256
LIMIT_S = 180.0
SLOT = "bench"


def measure_starts(settings: Settings, repeats: int) -> list[dict[str, Any]]:
    """Start a scheduler and a worker with more and more tasks registered; ask those in use."""
    backbones = [Backbone.load(find(n, settings.models_dir)) for n in LEVEL_BACKBONES.values()]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(Path(folder) / "broker") as broker:
        names = [f"task-{number}" for number in range(max(REGISTERED))]
        artifacts = make_tasks(Path(folder) / "tasks", names, "bitfit", backbones)
        for count in REGISTERED:
            own = settings.with_flags(
                bootstrap_servers=broker.bootstrap_servers,
                namespace=f"bench-{count}",
                tasks_dir=Path(folder) / "tasks",
                state_dir=Path(folder) / "state",
            )
            rows += _measure(own, artifacts[:count], repeats)
    return rows


def _measure(
    settings: Settings, artifacts: Sequence[Artifact], repeats: int
) -> list[dict[str, Any]]:
    kafka = KafkaSettings(bootstrap_servers=settings.bootstrap_servers or "")
    topics = TopicNames(settings.namespace)
    create_topics(kafka, topics, levels=(0,), partitions=1)
    event_bytes = register(kafka, topics, artifacts)
    in_use = artifacts[:IN_USE]
    _note_in_use(settings, in_use)
    rows: list[dict[str, Any]] = []
    starts: dict[str, list[tuple[float, int]]] = {"scheduler": [], "worker": []}
    asked_mib: list[dict[str, float]] = []
    for _ in range(repeats):
        processes = {
            "scheduler": Started(settings, "scheduler", ("scheduler", "--levels", "0")),
        }
        processes["worker"] = Started(
            settings, "worker", ("worker", "--level", "0", "--memory-mib", str(MEMORY_MIB))
        )
        for name, process in processes.items():
            starts[name].append((process.start_s, process.resident_bytes()))
        _ask(settings, in_use)
        asked_mib.append({n: p.resident_bytes() / 2**20 for n, p in processes.items()})
        for process in processes.values():
            process.stop()
    for name, found in starts.items():
        rows.append(
            {
                "part": "start",
                "process": name,
                "registered": len(artifacts),
                "in_use": len(in_use),
                "event_bytes": event_bytes / len(artifacts) if artifacts else 0.0,
                "start_s": statistics.median(seconds for seconds, _ in found),
                "starts_s": [round(seconds, 2) for seconds, _ in found],
                "resident_mib_ready": statistics.median(size for _, size in found) / 2**20,
                "resident_mib_asked": statistics.median(row[name] for row in asked_mib),
            }
        )
    return rows


def _note_in_use(settings: Settings, in_use: Sequence[Artifact]) -> None:
    """Leave behind what an earlier worker would have left."""
    references = [
        TaskReference(a.description.name, a.description.revision, a.digest) for a in in_use
    ]
    recent = RecentTasks(recent_tasks_file(settings, 0, SLOT))
    recent.write([(reference, True) for reference in references])


def _ask(settings: Settings, in_use: Sequence[Artifact]) -> None:
    """Ask each task once; every answer must be that task's."""
    connection = Connection(
        KafkaSettings(bootstrap_servers=settings.bootstrap_servers or ""), settings.namespace
    )
    queries = [
        new_query(a.description.name, "what is my balance", parameters=QueryParameters(level=0))
        for a in in_use
    ]
    with Client(connection, timeout_s=LIMIT_S) as client:
        for query, answer in zip(queries, client.ask_many(queries), strict=True):
            if isinstance(answer, Exception):
                raise answer
            assert (answer.task, answer.task_revision) == (query.task, 1)


class Started:
    """A service that was started alone and is ready."""

    def __init__(self, settings: Settings, name: str, arguments: Sequence[str]) -> None:
        folder = settings.state_dir / "bench"
        folder.mkdir(parents=True, exist_ok=True)
        health = folder / f"{name}.json"
        health.unlink(missing_ok=True)
        self._log_path = folder / f"{name}.log"
        started_s = time.monotonic()
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "petstream", *arguments, "--slot", SLOT),
                    *("--health-file", str(health)),
                ],
                env=settings.environment(),
                stdout=log,
                stderr=log,
            )
        while (said := read_health(health)) is None or not said.is_ready:
            if self._process.poll() is not None or time.monotonic() - started_s > LIMIT_S:
                self.stop()
                raise RuntimeError(self._log_path.read_text()[-2000:])
            time.sleep(0.01)
        self.start_s = time.monotonic() - started_s

    def resident_bytes(self) -> int:
        """Return what of it is in memory."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def stop(self) -> None:
        """Let it drain and end."""
        self._process.terminate()
        self._process.wait()
