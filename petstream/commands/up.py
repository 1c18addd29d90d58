"""`petstream up`: the services, kept running."""

import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace

import psutil
import typer

from petstream import services_file
from petstream.deployment import (
    READY_LIMIT_S,
    Shape,
    broker_for,
    fetch_backbones,
    make_topics,
    revive,
    supervisor_for,
)
from petstream.kafka_connection import with_local_broker
from petstream.lifetime import stop_event
from petstream.output import console, error_console, fail
from petstream.services_file import AlreadyUpError, RunningServices
from petstream.settings import Settings, load_settings
from petstream.supervisor import ServiceNotReadyError, Supervisor
from transport.embedded_broker import EmbeddedBroker, EmbeddedBrokerError

app = typer.Typer()

TEND_EVERY_S = 0.2
STOP_LIMIT_S = 60.0


@app.command()
def up(
    bootstrap_servers: str | None = typer.Option(
        None, help="Your Kafka, host:port. Default: the broker of this machine."
    ),
    namespace: str | None = typer.Option(None, help="Prefix of the topics."),
    schedulers: int = typer.Option(1, min=1, help="Scheduler processes."),
    small_workers: int = typer.Option(1, min=1, help="Workers of level 0."),
    large_workers: int = typer.Option(1, min=1, help="Workers of level 1."),
    detach: bool = typer.Option(False, "--detach", help="Return when all is ready."),
) -> None:
    """Run broker, scheduler and workers; start again what crashes; stop all on Ctrl-C.

    A broker that `petstream broker start` runs here is used, and left running at the end.

    Example: petstream up --detach
    """
    settings = load_settings().with_flags(bootstrap_servers=bootstrap_servers, namespace=namespace)
    running = services_file.read(settings.state_dir)
    if running is not None:
        fail(f"already up{running.on_broker}; stop it with `petstream down`")
    if detach:
        _detach(settings)
        return
    try:
        with services_file.held(settings.state_dir):
            _run(with_local_broker(settings), Shape(schedulers, small_workers, large_workers))
    except (AlreadyUpError, ServiceNotReadyError, EmbeddedBrokerError) as error:
        fail(str(error))


def _run(settings: Settings, shape: Shape) -> None:
    report = _Report(settings)
    report.write()
    fetch_backbones(settings.models_dir)
    with broker_for(settings, settings.state_dir) as (settings, broker):
        make_topics(settings, shape)
        supervisor = supervisor_for(settings, shape, settings.state_dir)
        report.now_of(settings, supervisor, has_own_broker=broker is not None)
        stop = stop_event()
        try:
            supervisor.start()
            _serve(report, supervisor, broker, stop)
        finally:
            report.write("stopping")
            supervisor.stop()


def _serve(
    report: "_Report", supervisor: Supervisor, broker: EmbeddedBroker | None, stop: threading.Event
) -> None:
    with error_console.status("starting scheduler and workers"):
        if not supervisor.wait_until_ready(READY_LIMIT_S, stop=stop, on_turn=report.write):
            return
    settings = report.settings
    report.write("serving")
    console.print(
        f"up on {settings.bootstrap_servers}, namespace {settings.namespace}; Ctrl-C stops"
    )
    while not stop.wait(TEND_EVERY_S):
        for name in supervisor.tend():
            error_console.print(f"{name} died; starting it again")
        if broker is not None and revive(broker, settings.state_dir):
            error_console.print("the broker died; it is started again")
        report.write("serving")


@dataclass(slots=True)
class _Report:
    """Writes the services file of this process."""

    settings: Settings
    supervisor: Supervisor | None = None
    _said: RunningServices = field(init=False)

    def __post_init__(self) -> None:
        own = psutil.Process()
        self._said = RunningServices(
            supervisor_pid=own.pid,
            supervisor_started_s=own.create_time(),
            state="starting",
            bootstrap_servers=self.settings.bootstrap_servers or "",
            namespace=self.settings.namespace,
            delivery=self.settings.delivery,
            embedded_broker=False,
            processes=(),
        )

    def now_of(self, settings: Settings, supervisor: Supervisor, *, has_own_broker: bool) -> None:
        """Speak of these services from now on."""
        self.settings = settings
        self.supervisor = supervisor
        self._said = replace(
            self._said,
            bootstrap_servers=settings.bootstrap_servers or "",
            embedded_broker=has_own_broker,
        )

    def write(self, state: services_file.State = "starting") -> None:
        """Write how things are."""
        processes = () if self.supervisor is None else tuple(self.supervisor.statuses())
        self._said = replace(self._said, state=state, processes=processes)
        services_file.write(self.settings.state_dir, self._said)


def _detach(settings: Settings) -> None:
    """Start this command once more in a session of its own and wait until it serves."""
    log_path = settings.state_dir / "logs" / "up.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    arguments = [argument for argument in sys.argv[1:] if argument != "--detach"]
    stop = stop_event()
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "petstream", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    with error_console.status("starting broker, scheduler and workers"):
        while not stop.wait(0.1):
            services = services_file.read(settings.state_dir)
            is_own = services is not None and services.supervisor_pid == process.pid
            if services is not None and is_own and services.is_ready:
                console.print(f"up{services.on_broker}, namespace {services.namespace}")
                return
            if process.poll() is not None:
                last = log_path.read_text(errors="replace").strip().splitlines()
                fail(f"{last[-1] if last else 'it ended without a word'} (log: {log_path})")
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    fail("stopped before everything was ready; nothing is up")
