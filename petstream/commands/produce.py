"""`petstream produce`: a file of queries, published as it stands or drawn from as a load."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import typer

from messages.query import Query
from petstream.answer_view import wire_form
from petstream.client_connection import client_connection
from petstream.load_view import report_document, report_tables
from petstream.output import console, counting_bar, error_console, fail, print_json
from petstream.query_file import QueryFileError, read_queries
from producers.client import Client
from producers.errors import ClientError
from producers.load import paced, run_load
from producers.ticket import Ticket
from producers.workload import TimedQuery, in_order, plan_load

app = typer.Typer()

_STDIN = Path("-")


@app.command()
def produce(
    file: Path = typer.Argument(help="JSONL: task, text, ... per line; - is standard input."),
    task: str | None = typer.Option(None, "--task", "-t", help="For lines without a task."),
    ignore_unknown: bool = typer.Option(
        False, "--ignore-unknown", help="Allow further fields, such as a label."
    ),
    limit: int | None = typer.Option(None, min=1, help="Only the first N queries of the file."),
    rate: float | None = typer.Option(
        None, min=0.001, help="Mean queries per second, with random gaps; default: no limit."
    ),
    draw: int | None = typer.Option(
        None, min=1, help="Send N queries drawn from the file instead of the file itself."
    ),
    zipf: float = typer.Option(1.0, min=0, help="With --draw: how unevenly tasks are asked."),
    seed: int = typer.Option(0, min=0, help="Of the gaps and of --draw."),
    wait: bool = typer.Option(False, "--wait", help="Wait for the answers and report on them."),
    answers: Path | None = typer.Option(None, help="With --wait: write the answers here, JSONL."),
    timeout: float = typer.Option(30.0, min=0.1, help="Seconds to wait after the last was sent."),
    in_flight: int = typer.Option(1_000, min=1, help="Most queries under way at once."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
    bootstrap_servers: str | None = typer.Option(None, help="Kafka, host:port."),
    namespace: str | None = typer.Option(None, help="Prefix of the topics."),
) -> None:
    """Publish the queries of a file; exit 1 unless all of them got through.

    With --wait, "through" means a result for every query.

    Example: petstream produce queries.jsonl --rate 100 --wait --json
    """
    if answers is not None and not wait:
        fail("--answers needs --wait", code=2)
    with ExitStack() as stack:
        try:
            lines = sys.stdin if file == _STDIN else stack.enter_context(file.open())
            read = read_queries(lines, task=task, ignore_unknown=ignore_unknown)
            queries: Iterable[Query] = islice(read, limit)
            if file != _STDIN:
                # To its end first: of a file with a bad line nothing is published.
                queries = list(queries)
            count = draw or (len(queries) if isinstance(queries, list) else None)
            if draw is None:
                plan = in_order(queries, rate_per_s=rate, seed=seed)
            elif rate is None:
                fail("--draw needs --rate", code=2)
            else:
                plan = plan_load(
                    list(queries), rate_per_s=rate, count=draw, zipf_exponent=zipf, seed=seed
                )
            connection = client_connection(bootstrap_servers, namespace)
            client = stack.enter_context(
                Client(connection, max_in_flight=in_flight, timeout_s=timeout)
            )
            is_through = (
                _ask(client, plan, count, answers, timeout, as_json=as_json)
                if wait
                else _publish(client, plan, count, as_json=as_json)
            )
        except (OSError, QueryFileError) as error:
            before = "; the lines before it were published" if file == _STDIN else ""
            fail(f"{file}: {error}{before}", code=2)
        except ClientError as error:
            fail(f"{type(error).__name__}: {error}")
    if not is_through:
        raise typer.Exit(1)


def _publish(
    client: Client, plan: Iterator[TimedQuery], count: int | None, *, as_json: bool
) -> bool:
    """Publish, and tell whether everything is stored."""
    stored = 0
    errors: dict[str, int] = {}
    with counting_bar("published", count) as on_published:
        for outcome in client.publish_many(paced(plan)):
            if isinstance(outcome, ClientError):
                if not errors:
                    error_console.print(f"{type(outcome).__name__}: {outcome}", markup=False)
                errors[type(outcome).__name__] = errors.get(type(outcome).__name__, 0) + 1
            else:
                stored += 1
                on_published()
    if as_json:
        print_json({"command": "produce", "published": stored, "errors": errors})
    else:
        typer.echo(f"{stored} queries published")
    return not errors


def _ask(
    client: Client,
    plan: Iterator[TimedQuery],
    count: int | None,
    answers: Path | None,
    timeout_s: float,
    *,
    as_json: bool,
) -> bool:
    """Publish and wait, and tell whether every query has a result."""
    settled: list[Ticket] = []
    with counting_bar("answered", count) as on_answer:

        def on_settled(ticket: Ticket) -> None:
            settled.append(ticket)
            on_answer()

        report = run_load(client, plan, answer_timeout_s=timeout_s, on_settled=on_settled)
    if answers is not None:
        documents = [
            wire_form(ticket.answered.result()) for ticket in settled if _is_answered(ticket)
        ]
        answers.write_text("".join(json.dumps(document) + "\n" for document in documents))
    if as_json:
        print_json({"command": "produce", **report_document(report)})
    else:
        console.print(report_tables(report))
    return not report.unanswered and not report.errors


def _is_answered(ticket: Ticket) -> bool:
    return not ticket.answered.cancelled() and ticket.answered.exception() is None
