"""One scheduler process: builds directory, stage, window and session, and runs the pipeline."""

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from messages.limits import MAX_BATCH_BYTES
from messages.topics import TopicNames
from scheduler.admission import Admission
from scheduler.cost_model import CostModel, default_cost_model
from scheduler.placement import Placement
from scheduler.planning import PlanLimits
from scheduler.policies.catalogue import DEFAULT_POLICY
from scheduler.registry import TaskDirectory
from scheduler.stage import Planning, SchedulingStage
from scheduler.tokenisation import Tokenizers
from scheduler.validation import TextLimits
from scheduler.window import SchedulingWindow, WindowLimits
from transport.admin import REQUEST_TIMEOUT_S, admin_client, topic_ids
from transport.backlog import Backlog
from transport.groups import scheduler_group, worker_group
from transport.health import HealthFile
from transport.intake import IntakeLimits
from transport.pipeline import PipelineLimits, run_pipeline
from transport.session import Session
from transport.settings import KafkaSettings
from transport.table import TableFollower
from transport.topics import verify_topics

logger = logging.getLogger(__name__)

TASKS_CURRENT_LIMIT_S = 30.0
BACKLOG_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """How one scheduler works; every scheduler of a namespace should have the same."""

    levels: Sequence[int] = (0, 1)
    """Levels that have a pool of workers."""
    policy: str = DEFAULT_POLICY
    window: WindowLimits = field(default_factory=WindowLimits)
    plan: PlanLimits = field(default_factory=PlanLimits)
    texts: TextLimits = field(default_factory=TextLimits)
    cost_models: Mapping[str, CostModel] = field(default_factory=dict)
    """By backbone; what is missing is planned with the built-in shape."""
    reply_topics: Collection[str] | None = None
    """Topics that callers may choose for their answers; None: none, and the wish is ignored."""
    max_outstanding_batches: int = 64
    """Of the first level's pool. Above it queries stay in their topic, where they last and windows
    grow. Those of the other pools are not looked at: a large level that is slow or gone must not
    keep the small one from answering, and its batches last in their topic, too."""
    commit_interval_ms: float = 20.0


def run_scheduler(
    *,
    kafka: KafkaSettings,
    topics: TopicNames,
    models_dir: Path,
    slot: str,
    settings: SchedulerSettings,
    health_file: Path | None,
    stop: threading.Event,
) -> None:
    """Serve until `stop` is set, then finish the windows in hand and leave the group.

    Nothing is taken from the query topic before the task directory is current: a query of a task
    that was registered long ago must not be called unknown because the scheduler is new.

    Raises:
        TopicConfigError: If a topic is missing or configured otherwise.
        TableFollowerFailed: If the tasks topic cannot be read.
        TimeoutError: If the tasks or the outstanding work are not known in time.
        SessionError: If the pipeline cannot go on; starting the process again loses nothing.
    """
    health = HealthFile(health_file)
    verify_topics(kafka, topics, levels=settings.levels)
    directory = TaskDirectory()
    tokenizers = Tokenizers(models_dir)
    follower = TableFollower(kafka, topics.tasks, directory.apply)
    first_level = min(settings.levels)
    first_pool = worker_group(topics.namespace, first_level)
    backlog = Backlog(kafka, {first_pool: topics.batches(first_level)})
    session = Session(
        kafka,
        group=scheduler_group(topics.namespace),
        topics=[topics.queries, topics.escalations],
        slot=slot,
        prefetch="many",
    )
    follower.start()
    backlog.start()
    try:
        follower.wait_until_current(TASKS_CURRENT_LIMIT_S)
        if not backlog.wait_until_measured(BACKLOG_LIMIT_S):
            raise TimeoutError(f"the pool's outstanding work is not known in {BACKLOG_LIMIT_S} s")
        tokenizers.preload(directory.backbones())
        stage = _stage(kafka, topics, settings, directory, tokenizers)
        logger.info("schedules %d tasks, policy %s", len(directory), settings.policy)

        def turn() -> None:
            follower.raise_if_failed()
            health.turn()

        run_pipeline(
            session,
            SchedulingWindow(settings.window),
            stage,
            stop=stop,
            may_take=lambda: backlog.has_room(first_pool, settings.max_outstanding_batches),
            on_turn=turn,
            limits=PipelineLimits(
                commit_interval_ms=settings.commit_interval_ms,
                intake=IntakeLimits(max_records=2 * settings.window.max_rows),
            ),
        )
    finally:
        health.report("draining")
        backlog.close()
        follower.close()


def _stage(
    kafka: KafkaSettings,
    topics: TopicNames,
    settings: SchedulerSettings,
    directory: TaskDirectory,
    tokenizers: Tokenizers,
) -> SchedulingStage:
    admin = admin_client(kafka)
    known = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
    return SchedulingStage(
        topics=topics,
        admission=Admission(
            directory,
            levels=settings.levels,
            topic_id=topic_ids(admin, [topics.queries], kafka)[topics.queries],
            text_limits=settings.texts,
            reply_topics=settings.reply_topics,
        ),
        tokenizers=tokenizers,
        planning=Planning(
            policy=settings.policy,
            limits=settings.plan,
            cost_models=settings.cost_models,
            default_cost_model=default_cost_model(),
            max_batch_bytes=MAX_BATCH_BYTES,
        ),
        placements={
            level: Placement(len(known[topics.batches(level)].partitions))
            for level in settings.levels
        },
    )
