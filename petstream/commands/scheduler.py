"""`petstream scheduler`: one scheduler process."""

import socket
from pathlib import Path

import typer

from messages.topics import TopicNames
from petstream.kafka_connection import broker_settings, kafka_settings
from petstream.lifetime import stop_event, stop_when_orphaned
from petstream.output import fail
from petstream.service_log import log_to_stderr
from petstream.settings import Settings
from scheduler.cost_model import CostModel
from scheduler.planning import PlanLimits
from scheduler.policies.catalogue import DEFAULT_POLICY, POLICIES
from scheduler.profile_file import ProfileError, read_profile, read_profiles
from scheduler.service import SchedulerSettings, run_scheduler
from scheduler.validation import TextLimits
from scheduler.window import WindowLimits

app = typer.Typer()

DEFAULTS = SchedulerSettings()
WINDOW, PLAN = DEFAULTS.window, DEFAULTS.plan


@app.command()
def scheduler(
    levels: str = typer.Option("0,1", help="Levels that have a pool of workers."),
    policy: str = typer.Option(DEFAULT_POLICY, help=f"How to batch: {', '.join(POLICIES)}."),
    window_ms: float = typer.Option(WINDOW.max_wait_ms, min=0, help="Longest wait for company."),
    window_rows: int = typer.Option(WINDOW.max_rows, min=1, help="Most queries of a window."),
    window_tokens: int = typer.Option(WINDOW.max_tokens, min=1, help="Most tokens, estimated."),
    deadline_reserve_ms: float = typer.Option(
        WINDOW.deadline_reserve_ms, min=0, help="Close so long before the earliest deadline."
    ),
    batch_rows: int = typer.Option(PLAN.max_batch_rows, min=1, help="Most rows of a batch."),
    batch_tokens: int = typer.Option(PLAN.max_batch_tokens, min=1, help="Most tokens of a batch."),
    max_chars: int = typer.Option(DEFAULTS.texts.max_chars, min=1, help="Longest text accepted."),
    max_outstanding: int = typer.Option(
        DEFAULTS.max_outstanding_batches,
        min=1,
        help="Batches waiting for a pool, above which queries are left in their topic.",
    ),
    profile: list[Path] | None = typer.Option(
        None, help="Measured costs; default: those of `petstream profile`."
    ),
    reply_topic: list[str] | None = typer.Option(
        None, help="A topic that callers may choose for their answers; repeat for more."
    ),
    slot: str = typer.Option(
        socket.gethostname(), help="Stable name of this instance; unique among those that live."
    ),
    bootstrap_servers: str | None = typer.Option(None, help="Kafka, host:port."),
    namespace: str | None = typer.Option(None, help="Prefix of the topics."),
    health_file: Path | None = typer.Option(None, help="Where to say that it is ready."),
    supervisor_pid: int | None = typer.Option(None, help="Stop when this parent is gone."),
) -> None:
    """Gather queries into macro-batches for the workers, until SIGTERM; then drain.

    Example: petstream scheduler --bootstrap-servers localhost:9092 --window-ms 10
    """
    log_to_stderr()
    settings = broker_settings(bootstrap_servers, namespace)
    if policy not in POLICIES:
        fail(f"no policy {policy!r}; there are {', '.join(POLICIES)}", code=2)
    scheduler_settings = SchedulerSettings(
        levels=_parse_levels(levels),
        policy=policy,
        window=WindowLimits(
            max_wait_ms=window_ms,
            max_rows=window_rows,
            max_tokens=window_tokens,
            deadline_reserve_ms=deadline_reserve_ms,
        ),
        plan=PlanLimits(max_batch_rows=batch_rows, max_batch_tokens=batch_tokens),
        texts=TextLimits(max_chars),
        cost_models=cost_models(settings, profile),
        reply_topics=frozenset(reply_topic) if reply_topic else None,
        max_outstanding_batches=max_outstanding,
    )
    stop = stop_event()
    if supervisor_pid is not None:
        stop_when_orphaned(stop, supervisor_pid)
    run_scheduler(
        kafka=kafka_settings(settings),
        topics=TopicNames(settings.namespace),
        models_dir=settings.models_dir,
        slot=slot,
        settings=scheduler_settings,
        health_file=health_file,
        stop=stop,
    )


def _parse_levels(text: str) -> tuple[int, ...]:
    try:
        levels = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        levels = ()
    if not levels or levels[0] < 0:
        fail(f"--levels takes numbers such as 0,1; got {text!r}", code=2)
    return levels


def cost_models(settings: Settings, paths: list[Path] | None) -> dict[str, CostModel]:
    """Return the cost models that were measured, by backbone.

    Args:
        settings: Their state folder holds what `petstream profile` wrote.
        paths: Files to read instead.

    Raises:
        typer.Exit: If a file is no profile.
    """
    try:
        if paths:
            profiles = [read_profile(path) for path in paths]
        else:
            profiles = read_profiles(settings.state_dir / "profiles")
    except ProfileError as error:
        fail(str(error), code=2)
    return {profile.backbone: profile.cost_model() for profile in profiles}
