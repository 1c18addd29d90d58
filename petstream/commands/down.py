"""`petstream down`: stop what `up` runs."""

import psutil
import typer

from petstream import services_file
from petstream.output import console, error_console, fail
from petstream.settings import load_settings

app = typer.Typer()

STOP_LIMIT_S = 60.0


@app.command()
def down() -> None:
    """Stop the services of `petstream up`; work in flight is finished first.

    Example: petstream down
    """
    settings = load_settings()
    running = services_file.read(settings.state_dir)
    if running is None:
        fail(
            "nothing is up; `petstream up --detach` starts the services, "
            "`petstream broker stop` stops a broker that was started by itself"
        )
    try:
        supervisor = psutil.Process(running.supervisor_pid)
        supervisor.terminate()
        with error_console.status("stopping"):
            supervisor.wait(STOP_LIMIT_S)
    except psutil.NoSuchProcess:
        pass  # it ended by itself meanwhile
    except psutil.TimeoutExpired:
        fail(f"process {running.supervisor_pid} did not stop within {STOP_LIMIT_S:.0f} s; kill it")
    console.print("down")
