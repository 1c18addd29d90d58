"""Open-loop load: queries leave at their planned times, whatever the service does meanwhile.

Latencies count from the planned time of a query, not from when it was sent. A stall that keeps
later queries from leaving is thus counted for each of them, as callers would feel it (no
coordinated omission). Queries without a time leave as fast as the client has room for them, and
count from when they left.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from messages.errors import ErrorAnswer
from messages.query import Query
from producers.errors import ClientError
from producers.latency import LatencySummary, summarise
from producers.outstanding import Outstanding
from producers.ticket import Ticket
from producers.workload import TimedQuery


class Submitter(Protocol):
    """What load needs of a client."""

    def submit(self, query: Query, /) -> Ticket:
        """Publish and return at once, or raise `ClientError`."""
        ...

    def give_up(self, ticket: Ticket, /) -> None:
        """Cancel `answered` of the ticket."""
        ...


@dataclass(frozen=True, slots=True)
class TaskReport:
    """What happened to the queries of one task."""

    answered: int
    errors: int
    latency_ms: LatencySummary | None


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What happened to a load."""

    queries: int
    answered: int
    """With a result or an error answer."""
    errors: tuple[tuple[str, int], ...]
    """Error answers by reason, and what went wrong on this side by its class."""
    unanswered: int
    """Not sent, or without an answer in time: infinitely late in the percentiles."""
    duration_s: float
    """From the start to the last answer."""
    offered_qps: float | None
    """Queries per second of the plan; None where it had no times."""
    throughput_qps: float
    """Answers per second of `duration_s`."""
    latency_ms: LatencySummary | None
    """To the answer, from the planned time of a query or, where it has none, from sending."""
    send_lag_ms: LatencySummary | None
    """How late this process itself sent: where it is large, the sender is the bottleneck."""
    levels: tuple[tuple[int, int], ...]
    """Results by the level that answered."""
    tasks: tuple[tuple[str, TaskReport], ...]


@dataclass(frozen=True, slots=True)
class _Outcome:
    task: str
    latency_ms: float | None
    """None: no answer."""
    error: str | None
    level: int | None
    at_s: float


def run_load(
    client: Submitter,
    plan: Iterable[TimedQuery],
    *,
    answer_timeout_s: float = 30.0,
    on_settled: Callable[[Ticket], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> LoadReport:
    """Send `plan` and wait for the answers.

    Args:
        client: With room for all queries that the service may owe at once; where it has none,
            sending waits, and the wait counts as latency.
        plan: Ascending in time.
        answer_timeout_s: How long to wait for answers after the last query was sent.
        on_settled: Called, on a thread of the client's, when a ticket is answered or given up.
        clock: Seconds, monotonic.
        sleep: Waits so many seconds of `clock`.
    """
    outcomes: list[_Outcome] = []
    outstanding = Outstanding(client.give_up)
    send_lags_ms: list[float] = []
    start_s = clock()
    last_planned_s: float | None = None
    for timed in plan:
        due_s = clock() if timed.at_s is None else start_s + timed.at_s
        last_planned_s = timed.at_s
        early_s = due_s - clock()
        if early_s > 0:
            sleep(early_s)
        send_lags_ms.append(max(0.0, clock() - due_s) * 1e3)
        try:
            ticket = client.submit(timed.query)
        except ClientError as error:
            outcomes.append(_Outcome(timed.query.task, None, type(error).__name__, None, clock()))
            continue
        from_s = due_s if timed.at_s is not None else clock()

        def settled(ticket: Ticket = ticket, from_s: float = from_s) -> None:
            outcomes.append(_outcome_of(ticket, from_s, clock()))
            on_settled(ticket)

        outstanding.add(ticket, settled)
    outstanding.settle_all(answer_timeout_s)
    return _report(outcomes, send_lags_ms, start_s, last_planned_s)


def paced(
    plan: Iterable[TimedQuery],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Query]:
    """Yield the queries of `plan`, each not before its time after the first call."""
    start_s = clock()
    for timed in plan:
        early_s = 0.0 if timed.at_s is None else start_s + timed.at_s - clock()
        if early_s > 0:
            sleep(early_s)
        yield timed.query


def _outcome_of(ticket: Ticket, due_s: float, now_s: float) -> _Outcome:
    task = ticket.query.task
    if ticket.answered.cancelled():
        return _Outcome(task, None, None, None, now_s)
    failure = ticket.answered.exception()
    if failure is not None:
        return _Outcome(task, None, type(failure).__name__, None, now_s)
    answer = ticket.answered.result()
    latency_ms = (now_s - due_s) * 1e3
    if isinstance(answer, ErrorAnswer):
        return _Outcome(task, latency_ms, answer.reason.value, None, now_s)
    return _Outcome(task, latency_ms, None, answer.level, now_s)


def _report(
    outcomes: list[_Outcome],
    send_lags_ms: list[float],
    start_s: float,
    last_planned_s: float | None,
) -> LoadReport:
    answered = [outcome for outcome in outcomes if outcome.latency_ms is not None]
    end_s = max((outcome.at_s for outcome in answered), default=start_s)
    duration_s = end_s - start_s
    tasks = sorted({outcome.task for outcome in outcomes})
    errors = Counter(outcome.error for outcome in outcomes if outcome.error is not None)
    levels = Counter(outcome.level for outcome in outcomes if outcome.level is not None)
    return LoadReport(
        queries=len(outcomes),
        answered=len(answered),
        errors=tuple(errors.most_common()),
        unanswered=len(outcomes) - len(answered),
        duration_s=duration_s,
        offered_qps=len(outcomes) / last_planned_s if last_planned_s else None,
        throughput_qps=len(answered) / duration_s if duration_s else 0.0,
        latency_ms=_latency(outcomes),
        send_lag_ms=summarise(send_lags_ms),
        levels=tuple(sorted(levels.items())),
        tasks=tuple((task, _task(task, outcomes)) for task in tasks),
    )


def _task(task: str, outcomes: list[_Outcome]) -> TaskReport:
    own = [outcome for outcome in outcomes if outcome.task == task]
    return TaskReport(
        answered=sum(outcome.latency_ms is not None for outcome in own),
        errors=sum(outcome.error is not None for outcome in own),
        latency_ms=_latency(own),
    )


def _latency(outcomes: list[_Outcome]) -> LatencySummary | None:
    latencies_ms = [o.latency_ms for o in outcomes if o.latency_ms is not None]
    return summarise(latencies_ms, num_unanswered=len(outcomes) - len(latencies_ms))
