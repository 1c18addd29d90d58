"""The demo's account of its queries, on a client that the test scripts."""

import threading
from collections import Counter

from messages.origin import Origin
from messages.query import Query
from petstream.commands.demo import summary_lines
from petstream.demo_report import as_json, as_table, make_report
from petstream.demo_run import Exchange, send_and_wait
from petstream.demo_samples import Sample, load_demo_tasks
from petstream.output import json_text
from producers.errors import ClientClosed
from producers.ticket import Ticket, settle
from tests.producers.answers import at, result_for

TASKS = load_demo_tasks()


class Service:
    """Answers the queries that the test says: at once, or on a thread that is held up."""

    def __init__(self, answered: set[int], *, is_slow: bool) -> None:
        self._is_slow = is_slow
        self.tickets: list[Ticket] = []
        self.account_made = threading.Event()
        self._answered = answered

    def submit(self, query: Query, /) -> Ticket:
        """Publish, and answer or not."""
        number = len(self.tickets)
        ticket = Ticket(query, b"digest!!")
        self.tickets.append(ticket)
        settle(ticket.published, at(number))
        if number in self._answered:
            if not self._is_slow:
                settle(ticket.answered, result_for(ticket, at(number)))
                return ticket
            # Callbacks run in their order, and after those that wait for the future were woken.
            ticket.answered.add_done_callback(lambda _: self.account_made.wait(0.2))
            answer = result_for(ticket, at(number))
            threading.Thread(target=settle, args=(ticket.answered, answer)).start()
        return ticket

    def give_up(self, ticket: Ticket, /) -> None:
        """Cancel."""
        ticket.answered.cancel()


def ask(
    count: int,
    answered: set[int],
    *,
    rate: float | None,
    limit_s: float = 0.0,
    is_slow: bool = False,
) -> list[Exchange]:
    """Send `count` queries to a service that answers some of them, then close the client."""
    service = Service(answered, is_slow=is_slow)
    samples = [Sample(TASKS[0].name, f"text {number}", ("lost_card",)) for number in range(count)]
    exchanges = send_and_wait(service, samples, rate=rate, limit_s=limit_s, on_answer=lambda: None)
    service.account_made.set()
    for ticket in service.tickets:
        settle(ticket.answered, ClientClosed("the client was closed before the answer came"))
    return exchanges


def test_every_answer_is_counted_before_the_account_is_made() -> None:
    """The wait ends after the last answer was noted, not when it came."""
    exchanges = ask(8, set(range(8)), limit_s=30.0, rate=None, is_slow=True)

    assert all(exchange.answer is not None for exchange in exchanges)
    assert all(exchange.latency_ms is not None for exchange in exchanges)


def test_a_query_without_an_answer_is_infinitely_late_and_no_throughput() -> None:
    """Closing the client settles its ticket, which is no answer."""
    steady = ask(4, {0, 1, 2}, rate=1000.0)
    burst = ask(4, {0}, rate=None)
    records = Counter[Origin]({at(0): 1, at(1): 1, at(2): 1})

    report = make_report(
        TASKS, [*steady, *burst], records, {"name": "k", "version": "v"}, steady_qps=50.0
    )

    assert (report.queries, report.answered) == (8, 4)
    assert report.latency_ms is not None
    assert report.latency_ms.p50 < report.latency_ms.p99 == float("inf")
    assert not report.is_exact
    assert [exchange.answered_s is None for exchange in burst] == [False, True, True, True]


def test_a_run_with_late_queries_is_still_a_json_document_and_a_table() -> None:
    """JSON knows no infinity: null."""
    report = make_report(
        TASKS, ask(2, set(), rate=1000.0), Counter[Origin](), {"name": "k"}, steady_qps=50.0
    )

    assert '"p50": null' in json_text(as_json(report))
    assert as_table(report).row_count == len(TASKS) + 1


def test_what_is_said_below_the_table_names_the_part_it_is_of() -> None:
    """All, the first half and the second half; a task's columns and the sum are of all."""
    exchanges = [*ask(2, {0}, rate=None), *ask(3, {0, 1, 2}, rate=1000.0)]
    report = make_report(TASKS, exchanges, Counter[Origin](), {"name": "k"}, steady_qps=50.0)

    everything, throughput, latency = summary_lines(report)

    assert everything.startswith("all 5 queries: 4 answered (level 0 100%)")
    assert "of the first 2, which were published at once" in throughput
    assert "of the other 3, published at 50 queries/s" in latency
    assert [task.level_0_share for task in report.tasks if task.queries] == [0.8]
