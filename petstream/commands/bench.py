"""`petstream bench`: measure this machine, beside what else could do its work."""

import typer

from petstream.commands.bench_capacity import capacity
from petstream.commands.bench_engine import engine

app = typer.Typer(no_args_is_help=True)
app.command()(capacity)
app.command()(engine)


@app.callback()
def bench() -> None:
    """Measure this machine, beside what else could do its work.

    Example: petstream bench capacity --json
    """
