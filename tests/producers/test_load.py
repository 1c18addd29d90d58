"""Load runs on a clock that only the test moves: what is sent when, and what is counted."""

import heapq
import threading
from collections.abc import Callable
from itertools import count

import pytest

from messages.errors import Reason
from messages.query import Query
from producers.errors import PublishRejected
from producers.load import LoadReport, paced, run_load
from producers.ticket import Ticket, settle
from producers.workload import TimedQuery
from tests.producers.answers import ask, at, error_for, result_for

Service = Callable[[int, float], float | None]
"""(number of the query, time it was sent) -> time of its answer; None: never."""


class SimulatedClient:
    """A client whose service answers when `service` says, in time that `sleep` moves."""

    def __init__(self, service: Service, *, blocks_s: dict[int, float] | None = None) -> None:
        self.now_s = 1_000.0
        self.sent_s: list[float] = []
        self.reason: Reason | None = None
        self.rejects: set[int] = set()
        self._service = service
        self._blocks_s = blocks_s or {}
        self._due: list[tuple[float, int, Ticket]] = []
        self._numbers = count()

    def clock(self) -> float:
        """Seconds."""
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        """Let time pass, and the answers of that time come."""
        self._advance_to(self.now_s + duration_s)

    def submit(self, query: Query, /) -> Ticket:
        """Send, after blocking where the test says so."""
        number = next(self._numbers)
        self._advance_to(self.now_s + self._blocks_s.get(number, 0.0))
        if number in self.rejects:
            raise PublishRejected("too large")
        self.sent_s.append(self.now_s)
        ticket = Ticket(query, b"digest!!")
        due_s = self._service(number, self.now_s)
        if due_s is not None:
            heapq.heappush(self._due, (due_s, number, ticket))
        return ticket

    def give_up(self, ticket: Ticket, /) -> None:
        """Cancel."""
        ticket.answered.cancel()

    def _advance_to(self, end_s: float) -> None:
        while self._due and self._due[0][0] <= end_s:
            self.now_s, number, ticket = heapq.heappop(self._due)
            answer = result_for(ticket, at(number))
            settle(
                ticket.answered,
                error_for(ticket, at(number), self.reason) if self.reason else answer,
            )
        self.now_s = end_s


def run(client: SimulatedClient, times_s: list[float]) -> LoadReport:
    """Send one query at each of `times_s`, and a last one late enough for all answers."""
    plan = [TimedQuery(at_s, ask(f"text {n}")) for n, at_s in enumerate(times_s)]
    return run_load(client, plan, answer_timeout_s=0.0, clock=client.clock, sleep=client.sleep)


def test_queries_leave_when_planned_though_no_answer_has_come() -> None:
    """Open loop: a service of 10 s latency does not slow the arrivals down."""
    client = SimulatedClient(lambda _, sent_s: sent_s + 10)

    report = run(client, [0.5, 1.0, 1.25, 60.0])

    assert client.sent_s == [1000.5, 1001.0, 1001.25, 1060.0]
    assert report.latency_ms is not None
    assert report.latency_ms.p50 == pytest.approx(10_000)
    assert report.send_lag_ms is not None
    assert report.send_lag_ms.max == 0.0


def test_a_stall_counts_for_every_query_that_it_kept_from_leaving() -> None:
    """No coordinated omission: sending blocks for 1 s once, the service itself takes 10 ms."""
    client = SimulatedClient(lambda _, sent_s: sent_s + 0.010, blocks_s={0: 1.0})
    times_s = [n * 0.1 for n in range(10)]

    report = run(client, [*times_s, 60.0])

    # From the planned times the ten latencies are 1010, 910 ... 110 ms (and one query, the last,
    # is given up). From the times of sending they would be 10 ms each, as if nothing had happened.
    assert report.latency_ms is not None
    assert report.latency_ms.p50 == pytest.approx(610)
    assert report.latency_ms.p90 == pytest.approx(1010)
    assert report.send_lag_ms is not None
    assert report.send_lag_ms.max == pytest.approx(900)


def test_unanswered_queries_are_counted_and_infinitely_late() -> None:
    """One query of four never gets an answer."""
    client = SimulatedClient(lambda n, sent_s: None if n == 1 else sent_s + 0.02)

    report = run(client, [0.0, 0.1, 0.2, 5.0])

    # The last query, at 5 s, is given up too: no time passes after it.
    assert (report.queries, report.answered, report.unanswered) == (4, 2, 2)
    assert report.latency_ms is not None
    assert report.latency_ms.max == float("inf")


def test_error_answers_are_answers_and_are_counted_by_reason() -> None:
    """An error answer has a latency too; no level answered it."""
    client = SimulatedClient(lambda _, sent_s: sent_s + 0.02)
    client.reason = Reason.TASK_UNKNOWN

    report = run(client, [0.0, 0.1, 5.0])

    assert report.answered == 2
    assert report.errors == (("TASK_UNKNOWN", 2),)
    assert report.levels == ()


def test_a_query_that_cannot_be_sent_is_unanswered_and_named() -> None:
    """The others are not affected."""
    client = SimulatedClient(lambda _, sent_s: sent_s + 0.02)
    client.rejects = {0}

    report = run(client, [0.0, 0.1, 5.0])

    assert (report.queries, report.answered, report.unanswered) == (3, 1, 2)
    assert report.errors == (("PublishRejected", 1),)


def test_rates_and_levels_are_those_of_the_run() -> None:
    """Offered over the plan, throughput over the time to the last answer."""
    client = SimulatedClient(lambda _, sent_s: sent_s + 0.5)

    report = run(client, [1.0, 2.0, 3.0, 4.0, 100.0])

    assert report.offered_qps == pytest.approx(5 / 100)
    assert report.throughput_qps == pytest.approx(4 / 4.5)
    assert report.levels == ((0, 4),)
    assert [(name, task.answered) for name, task in report.tasks] == [("banking77", 4)]


def test_without_times_queries_leave_at_once_and_count_from_leaving() -> None:
    """As fast as the client has room: waiting for room is not the service's latency."""
    client = SimulatedClient(lambda _, sent_s: sent_s + 0.2, blocks_s={1: 5.0, 2: 5.0})
    plan = [TimedQuery(None, ask(f"text {n}")) for n in range(3)]

    report = run_load(client, plan, answer_timeout_s=0.0, clock=client.clock, sleep=client.sleep)

    assert client.sent_s == [1000.0, 1005.0, 1010.0]
    assert (report.answered, report.unanswered) == (2, 1)
    assert report.latency_ms is not None
    assert report.latency_ms.p50 == pytest.approx(200)


def test_paced_queries_wait_for_their_time_and_are_never_early() -> None:
    """For publishing without waiting for answers."""
    client = SimulatedClient(lambda _, __: None)
    plan = [TimedQuery(at_s, ask("text")) for at_s in (0.0, 2.0, 3.5)]

    times_s = [client.now_s for _ in paced(plan, clock=client.clock, sleep=client.sleep)]

    assert times_s == [1000.0, 1002.0, 1003.5]


class SlowToTell:
    """A client that answers on another thread, and is held up before it tells of the answer."""

    def __init__(self, reported: threading.Event) -> None:
        self._reported = reported
        self._numbers = count()

    def submit(self, query: Query, /) -> Ticket:
        """Send; the answer is there at once."""
        ticket = Ticket(query, b"digest!!")
        # Callbacks run in their order, and after those that wait for the future were woken.
        ticket.answered.add_done_callback(lambda _: self._reported.wait(0.2))
        answer = result_for(ticket, at(next(self._numbers)))
        threading.Thread(target=settle, args=(ticket.answered, answer)).start()
        return ticket

    def give_up(self, ticket: Ticket, /) -> None:
        """Cancel."""
        ticket.answered.cancel()


@pytest.mark.parametrize("answer_timeout_s", [30.0, 0.0])
def test_the_last_answers_are_in_the_report(answer_timeout_s: float) -> None:
    """Also those that came, but were not yet told of when the wait for them ended."""
    reported = threading.Event()
    plan = [TimedQuery(None, ask(f"text {n}")) for n in range(3)]

    report = run_load(SlowToTell(reported), plan, answer_timeout_s=answer_timeout_s)
    reported.set()

    assert report.queries == 3
    assert report.answered + report.unanswered == 3
    assert report.answered == 3 or answer_timeout_s == 0.0
