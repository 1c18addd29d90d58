"""A progress bar for the one download of the broker's jars."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from transport.embedded_broker.jars import KAFKA_VERSION, Progress


@contextmanager
def download_bar(console: Console) -> Iterator[Progress]:
    """Yield what `EmbeddedBroker(progress=...)` takes; draws only on a terminal, and only if used.

    Args:
        console: Where the bar is drawn; standard error, as a rule.
    """
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    row = bar.add_task(f"Apache Kafka {KAFKA_VERSION}, jars", total=None)

    def show(num_ready: int, num_jars: int) -> None:
        bar.start()
        bar.update(row, completed=num_ready, total=num_jars)
        if num_ready == num_jars:
            bar.stop()

    try:
        yield show
    finally:
        bar.stop()
