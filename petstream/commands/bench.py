"""`petstream bench`: measure this machine, beside what else could do its work."""

import typer

from petstream.commands.bench_capacity import capacity
from petstream.commands.bench_engine import engine

app = typer.Typer(
    no_args_is_help=True, help="Measure this machine, beside what else could do its work."
)
app.command()(capacity)
app.command()(engine)
