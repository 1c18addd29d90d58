"""`petstream up`: the services, kept running."""

import subprocess
import sys
import time

import psutil
import typer

from petstream import services_file
from petstream.deployment import (
    READY_LIMIT_S,
    Shape,
    broker_for,
    fetch_backbones,
    make_topics,
    supervisor_for,
)
from petstream.lifetime import stop_event
from petstream.output import console, error_console, fail
from petstream.services_file import RunningServices
from petstream.settings import Settings, load_settings
from petstream.supervisor import ServiceNotReadyError, Supervisor
from transport.embedded_broker import EmbeddedBroker

app = typer.Typer()

TEND_EVERY_S = 0.2


@app.command()
def up(
    bootstrap_servers: str | None = typer.Option(
        None, help="Your Kafka, host:port. Default: the embedded broker."
    ),
    namespace: str | None = typer.Option(None, help="Prefix of the topics."),
    schedulers: int = typer.Option(1, min=1, help="Scheduler processes."),
    small_workers: int = typer.Option(1, min=1, help="Workers of level 0."),
    large_workers: int = typer.Option(1, min=1, help="Workers of level 1."),
    detach: bool = typer.Option(False, "--detach", help="Return when all is ready."),
) -> None:
    """Run broker, scheduler and workers; start again what crashes; stop all on Ctrl-C.

    Example: petstream up --detach
    """
    settings = load_settings().with_flags(bootstrap_servers=bootstrap_servers, namespace=namespace)
    running = services_file.read(settings.state_dir)
    if running is not None:
        fail(f"already up on {running.bootstrap_servers}; stop it with `petstream down`")
    if detach:
        _detach(settings)
        return
    shape = Shape(schedulers, small_workers, large_workers)
    fetch_backbones(settings.models_dir)
    with broker_for(settings, settings.state_dir / "broker") as (settings, broker):
        make_topics(settings, shape)
        _serve(settings, supervisor_for(settings, shape), broker)


def _serve(settings: Settings, supervisor: Supervisor, broker: EmbeddedBroker | None) -> None:
    stop = stop_event()
    supervisor.start()
    try:
        with error_console.status("starting scheduler and workers"):
            supervisor.wait_until_ready(READY_LIMIT_S)
        _say(settings, supervisor, broker)
        console.print(
            f"up on {settings.bootstrap_servers}, namespace {settings.namespace}; Ctrl-C stops"
        )
        while not stop.wait(TEND_EVERY_S):
            for name in supervisor.tend():
                error_console.print(f"{name} died; starting it again")
            if broker is not None and not broker.is_running():
                error_console.print("the broker died; starting it again")
                broker.restart()
            _say(settings, supervisor, broker)
    except ServiceNotReadyError as error:
        fail(str(error))
    finally:
        services_file.remove(settings.state_dir)
        supervisor.stop()


def _say(settings: Settings, supervisor: Supervisor, broker: EmbeddedBroker | None) -> None:
    own = psutil.Process()
    services_file.write(
        settings.state_dir,
        RunningServices(
            supervisor_pid=own.pid,
            supervisor_started_s=own.create_time(),
            bootstrap_servers=settings.bootstrap_servers or "",
            namespace=settings.namespace,
            delivery=settings.delivery,
            embedded_broker=broker is not None,
            processes=tuple(supervisor.statuses()),
        ),
    )


def _detach(settings: Settings) -> None:
    """Start this command once more in a session of its own and wait until it serves."""
    log_path = settings.state_dir / "logs" / "up.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    arguments = [argument for argument in sys.argv[1:] if argument != "--detach"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "petstream", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    with error_console.status("starting broker, scheduler and workers"):
        while True:
            services = services_file.read(settings.state_dir)
            if services is not None and services.is_ready:
                break
            if process.poll() is not None:
                last = log_path.read_text(errors="replace").strip().splitlines()
                fail(f"{last[-1] if last else 'it ended without a word'} (log: {log_path})")
            time.sleep(0.1)
    console.print(f"up on {services.bootstrap_servers}, namespace {services.namespace}")
