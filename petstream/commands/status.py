"""`petstream status`: what runs."""

from dataclasses import asdict

import typer
from rich.table import Table

from petstream import services_file
from petstream.output import console, fail, print_json
from petstream.settings import load_settings

app = typer.Typer()


@app.command()
def status(as_json: bool = typer.Option(False, "--json", help="One JSON document.")) -> None:
    """Show the services of `petstream up`; exit 1 when nothing is up.

    Example: petstream status --json
    """
    running = services_file.read(load_settings().state_dir)
    if running is None:
        fail("nothing is up; start it with `petstream up --detach`")
    if as_json:
        print_json(
            {
                "state": running.state,
                "bootstrap_servers": running.bootstrap_servers,
                "namespace": running.namespace,
                "delivery": running.delivery,
                "processes": [asdict(process) for process in running.processes],
            }
        )
        return
    where = running.bootstrap_servers or "the broker is not there yet"
    console.print(
        f"{running.state}: {where}, namespace {running.namespace}, {running.delivery}",
        highlight=False,
    )
    table = Table("service", "level", "pid", "state", "restarts", "log")
    for process in running.processes:
        level = "" if process.level is None else str(process.level)
        table.add_row(
            process.name,
            level,
            str(process.pid),
            process.state,
            str(process.restarts),
            process.log,
        )
    console.print(table)
