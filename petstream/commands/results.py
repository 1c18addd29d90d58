"""`petstream results`: follow the answers of a namespace."""

import json

import typer

from petstream.answer_view import one_line, wire_form
from petstream.client_connection import client_connection
from petstream.output import error_console, fail
from producers.answer_stream import AnswerStream
from producers.client import Client
from producers.errors import AnswerUnreadable, ClientError
from producers.ticket import Answer

app = typer.Typer()


@app.command()
def results(
    task: str | None = typer.Option(None, "--task", "-t", help="Only the answers of this task."),
    from_beginning: bool = typer.Option(
        False, "--from-beginning", help="Begin with the oldest answer that is kept."
    ),
    limit: int | None = typer.Option(None, min=1, help="Stop after so many answers."),
    idle: float | None = typer.Option(
        None, min=0.1, help="Stop when no answer came for so many seconds."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document per line."),
    bootstrap_servers: str | None = typer.Option(None, help="Kafka, host:port."),
    namespace: str | None = typer.Option(None, help="Prefix of the topics."),
) -> None:
    """Print answers as they are published, each query's once, until Ctrl-C.

    Example: petstream results --from-beginning --limit 100 --json
    """
    connection = client_connection(bootstrap_servers, namespace)
    shown = 0
    try:
        with (
            Client(connection) as client,
            client.results(from_beginning=from_beginning, idle_timeout_s=idle) as stream,
        ):
            while (answer := _next(stream)) is not None:
                if task is not None and answer.task != task:
                    continue
                _show(answer, as_json=as_json)
                shown += 1
                if shown == limit:
                    break
    except KeyboardInterrupt:
        return
    except ClientError as error:
        fail(f"{type(error).__name__}: {error}")


def _next(stream: AnswerStream) -> Answer | None:
    """Return the next answer, saying so where a record is none; None at the end."""
    while True:
        try:
            return next(stream, None)
        except AnswerUnreadable as error:
            error_console.print(f"skipped: {error}", markup=False)


def _show(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(wire_form(answer), ensure_ascii=False))
    else:
        typer.echo(f"{answer.id}  {answer.task}  {one_line(answer)}")
