"""`petstream query`: one question, one answer."""

import time

import typer

from messages.query import QueryParameters
from petstream.answer_view import one_line, wire_form
from petstream.client_connection import client_connection
from petstream.output import fail, print_json
from producers.client import Client
from producers.errors import ClientError, TaskError
from producers.new_query import new_query

app = typer.Typer()


@app.command()
def query(
    text: str = typer.Argument(help="What the task is asked about."),
    task: str = typer.Option(..., "--task", "-t", help="NAME, NAME@REVISION or NAME:ALIAS."),
    pair: str | None = typer.Option(None, help="The second text, for tasks that take pairs."),
    level: int | None = typer.Option(None, min=0, help="Answer from exactly this level."),
    top_k: int | None = typer.Option(None, min=1, help="How many labels, best first."),
    min_confidence: float | None = typer.Option(
        None, min=0, max=1, help="Ask the large level below this; default: the task's own."
    ),
    ttl_ms: int | None = typer.Option(None, min=1, help="Not worth an answer after so long."),
    timeout: float = typer.Option(30.0, min=0.1, help="Seconds to wait for the answer."),
    as_json: bool = typer.Option(False, "--json", help="Print the answer as JSON."),
    bootstrap_servers: str | None = typer.Option(None, help="Kafka, host:port."),
    namespace: str | None = typer.Option(None, help="Prefix of the topics."),
) -> None:
    """Publish one query and print its answer; exit 1 where that is an error.

    Example: petstream query --task banking77 "My card was stolen"
    """
    connection = client_connection(bootstrap_servers, namespace)
    parameters = QueryParameters(level=level, min_confidence=min_confidence, top_k=top_k)
    asked = new_query(task, text, pair, parameters=parameters, ttl_ms=ttl_ms)
    try:
        with Client(connection, timeout_s=timeout) as client:
            started_s = time.monotonic()
            answer = client.ask(asked)
            took_ms = (time.monotonic() - started_s) * 1e3
    except TaskError as error:
        if as_json:
            print_json(wire_form(error.answer))
        fail(str(error))
    except ClientError as error:
        fail(f"{type(error).__name__}: {error}")
    if as_json:
        print_json(wire_form(answer))
    else:
        typer.echo(f"{one_line(answer)}  {took_ms:.0f} ms")
