"""Fetches backbones with a progress bar."""

from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from petstream.output import error_console
from workers.backbone_store import BackboneStore


def fetch_with_progress(store: BackboneStore, name: str) -> Path:
    """Fetch one backbone; a bar on a terminal, nothing elsewhere.

    Raises:
        BackboneError: If it cannot be had.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns, console=error_console, transient=True, disable=not error_console.is_terminal
    ) as bar:
        task = bar.add_task(f"{name}: checking", total=None)

        def show(what: str, done_bytes: int, total_bytes: int) -> None:
            bar.update(task, description=f"{name}: {what}", completed=done_bytes, total=total_bytes)

        return store.fetch(name, show)
