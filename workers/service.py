"""One worker process: builds engine, task manager and session of a level, and runs the pipeline."""

import logging
import threading
from collections.abc import Collection
from pathlib import Path

from messages.topics import TopicNames
from tasks.store import TaskStore
from transport.groups import worker_group
from transport.health import HealthFile
from transport.pipeline import PipelineLimits, run_pipeline
from transport.session import Session
from transport.settings import KafkaSettings
from transport.table import TableFollower
from transport.topics import verify_topics
from transport.window import CountWindow
from workers.backbone import Backbone
from workers.backbone_store import find
from workers.device_choice import precision_on_device
from workers.engine import Engine
from workers.grouped.on_device import OnDevice
from workers.levels import LEVEL_BACKBONES
from workers.precision import PrecisionChoice, precisions_of
from workers.recent_tasks import RecentTasks
from workers.registered_tasks import RegisteredTasks
from workers.stage import WorkerStage
from workers.task_manager import DeviceMemory, TaskManager

logger = logging.getLogger(__name__)

TASKS_CURRENT_LIMIT_S = 30.0
PINNED_LOADED_LIMIT_S = 60.0
MAX_UNIT_BATCHES = 64
MAX_UNIT_BYTES = 128 * 1024
"""Batches that wait are run together up to this size, some hundred rows: a row costs several times
less among fifty than alone, and hardly less among more (docs/log.md)."""
NUM_COMPUTE_THREADS = 2
"""While one unit's rows are computed, the next one's are read, and fill the cores that the last
slices of the first leave."""


def run_worker(
    *,
    kafka: KafkaSettings,
    topics: TopicNames,
    level: int,
    backbone: str | None,
    models_dir: Path,
    tasks_dir: Path,
    slot: str,
    threads: int | None,
    precision: PrecisionChoice,
    on_device: OnDevice | None,
    device_memory_bytes: int,
    figures_file: Path,
    merged_bytes: int,
    task_memory_bytes: int,
    pinned_tasks: Collection[str],
    recent_tasks_file: Path,
    health_file: Path | None,
    stop: threading.Event,
) -> None:
    """Serve one level until `stop` is set.

    It is ready when the pinned tasks are loaded; those that were in use before follow meanwhile.

    Args:
        kafka: Client settings.
        topics: Of the namespace.
        level: Which level's batches it takes.
        backbone: Name of its backbone; None: the level's own.
        models_dir: Where backbones lie.
        tasks_dir: The task store.
        slot: Stable name of this instance.
        threads: Compute threads; None: every core.
        precision: What to compute in.
        on_device: What to compute on, if not the cores of this machine.
        device_memory_bytes: On a device, its memory for the weights of loaded tasks.
        figures_file: Where this machine's figures are kept.
        merged_bytes: On cores, memory for whole weights of masks and diffs.
        task_memory_bytes: Host memory for the weights of loaded tasks.
        pinned_tasks: Names of tasks that are loaded at the start and never evicted.
        recent_tasks_file: Where it notes the tasks it used.
        health_file: Where to say that it is ready; None: nowhere.
        stop: Ends it.

    Raises:
        TopicConfigError: If the topics are missing or configured otherwise.
        BackboneError: If the level's backbone is not there or not what it should be.
        TableFollowerFailed: If the tasks topic cannot be read.
        SessionError: If the pipeline cannot go on; starting the process again loses nothing.
    """
    health = HealthFile(health_file)
    verify_topics(kafka, topics, levels=(level,))
    folder = find(backbone or LEVEL_BACKBONES[level], models_dir)
    engine = Engine(
        Backbone.load(folder),
        threads=threads,
        precisions=(
            precisions_of(precision) if on_device is None else (precision_on_device(precision),)
        ),
        figures_file=figures_file,
        merged_bytes=merged_bytes,
        on_device=on_device,
    )
    tasks = TaskManager(
        TaskStore(tasks_dir),
        engine,
        level=level,
        memory_limit_bytes=task_memory_bytes,
        device=None if on_device is None else DeviceMemory(on_device.device, device_memory_bytes),
    )
    stage = WorkerStage(
        level=level, engine=engine, tasks=tasks, backbone_folder=folder, topics=topics
    )
    recent = RecentTasks(recent_tasks_file)
    registered = RegisteredTasks(tasks, pinned_tasks, recent.read())
    follower = TableFollower(kafka, topics.tasks, registered.apply)
    session = Session(
        kafka,
        group=worker_group(topics.namespace, level),
        topics=[topics.batches(level)],
        slot=slot,
        prefetch="few",
    )
    follower.start()
    try:
        follower.wait_until_current(TASKS_CURRENT_LIMIT_S)
        registered.start(PINNED_LOADED_LIMIT_S)
        logger.info(
            "level %d serves %s in %s on %s",
            *(level, folder.name, ", ".join(engine.encoders), engine.device),
        )

        def turn() -> None:
            follower.raise_if_failed()
            health.turn()
            if recent.is_due():
                tasks.in_background(lambda: recent.write(tasks.contents()))

        window = CountWindow(MAX_UNIT_BATCHES, MAX_UNIT_BYTES)
        limits = PipelineLimits(num_compute_threads=NUM_COMPUTE_THREADS)
        run_pipeline(session, window, stage, stop=stop, on_turn=turn, limits=limits)
    finally:
        health.report("draining")
        follower.close()
        tasks.close()
        recent.write(tasks.contents())
