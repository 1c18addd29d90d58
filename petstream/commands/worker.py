"""`petstream worker`: one worker process of one level."""

import socket
from pathlib import Path
from urllib.parse import quote

import typer

from messages.topics import TopicNames
from petstream.kafka_connection import broker_settings, kafka_settings
from petstream.lifetime import stop_event, stop_when_orphaned
from petstream.output import fail
from petstream.service_log import log_to_stderr
from petstream.settings import Settings
from workers.device_choice import OperatorUnit, open_device
from workers.errors import DeviceUnavailableError
from workers.levels import LEVEL_BACKBONES
from workers.precision import PrecisionChoice

app = typer.Typer()


@app.command()
def worker(
    level: int = typer.Option(..., min=0, help="0 is the small level."),
    backbone: str | None = typer.Option(None, help="Default: the level's own."),
    slot: str = typer.Option(
        socket.gethostname(), help="Stable name of this instance; unique among those that live."
    ),
    threads: int | None = typer.Option(None, min=1, help="Compute threads; default: every core."),
    dtype: PrecisionChoice | None = typer.Option(
        None,
        help="What rows are computed in; default: PETSTREAM_DTYPE, else auto: bfloat16 where the "
        "processor has it, it is the faster one, and the task passed `tasks compare`.",
    ),
    device: str | None = typer.Option(
        None,
        help="What to compute on: cpu, cuda or cuda:N; default: PETSTREAM_DEVICE, else cpu.",
    ),
    device_memory_mib: int = typer.Option(
        4096, min=16, help="On a device: its memory for the weights of loaded tasks."
    ),
    operators: OperatorUnit = typer.Option(
        "grouped",
        help="On a device: operators of all tasks of a batch at once, or task by task as in PetS.",
    ),
    streams: int = typer.Option(
        1, min=1, help="On a device: streams that operators are dealt over, by PetS's rule."
    ),
    graphs: int = typer.Option(
        64,
        min=0,
        help="On a device: captured passes that are kept and replayed; 0: launch every kernel.",
    ),
    memory_mib: int = typer.Option(1024, min=16, help="Memory for the weights of loaded tasks."),
    merged_mib: int = typer.Option(
        128,
        min=0,
        help="Memory for whole weights of the masks and diffs that are asked for most; 0: none.",
    ),
    pin: list[str] = typer.Option(
        [], metavar="NAME", help="A task that is loaded at the start and never evicted; repeatable."
    ),
    bootstrap_servers: str | None = typer.Option(None, help="Kafka, host:port."),
    namespace: str | None = typer.Option(None, help="Prefix of the topics."),
    health_file: Path | None = typer.Option(None, help="Where to say that it is ready."),
    supervisor_pid: int | None = typer.Option(None, help="Stop when this parent is gone."),
) -> None:
    """Take macro-batches of a level, answer what is certain, escalate the rest.

    Example: petstream worker --level 0 --bootstrap-servers localhost:9092
    """
    if backbone is None and level not in LEVEL_BACKBONES:
        known = ", ".join(map(str, LEVEL_BACKBONES))
        fail(
            f"--level {level} has no backbone of its own (levels {known} do): give --backbone",
            code=2,
        )
    log_to_stderr()
    settings = broker_settings(bootstrap_servers, namespace).with_flags(device=device)
    stop = stop_event()
    if supervisor_pid is not None:
        stop_when_orphaned(stop, supervisor_pid)
    kafka = kafka_settings(settings)
    precision = dtype or settings.dtype
    try:
        device_opened = open_device(settings.device, precision)
    except DeviceUnavailableError as error:
        fail(str(error))
    # Takes seconds: after everything that may be wrong.
    from workers.grouped.on_device import OnDevice
    from workers.service import run_worker

    run_worker(
        kafka=kafka,
        topics=TopicNames(settings.namespace),
        level=level,
        backbone=backbone,
        models_dir=settings.models_dir,
        tasks_dir=settings.tasks_dir,
        slot=slot,
        threads=threads,
        precision=precision,
        on_device=(
            None
            if device_opened is None
            else OnDevice(device_opened, operators, streams, max_graphs=graphs)
        ),
        device_memory_bytes=device_memory_mib << 20,
        merged_bytes=merged_mib << 20,
        figures_file=settings.figures_file,
        task_memory_bytes=memory_mib << 20,
        pinned_tasks=pin,
        recent_tasks_file=recent_tasks_file(settings, level, slot),
        health_file=health_file,
        stop=stop,
    )


def recent_tasks_file(settings: Settings, level: int, slot: str) -> Path:
    """Return where a worker notes the tasks it used: a file for each namespace, level and slot."""
    owner = quote(f"{settings.namespace} {level} {slot}", safe="")
    return settings.state_dir / "recent-tasks" / f"{owner}.json"
