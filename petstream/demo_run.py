"""Sends labelled queries through Kafka and keeps account of every answer."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from messages.answer_codec import decode_answer
from messages.errors import ErrorAnswer, MessageError
from messages.origin import Origin
from messages.query import NO_PARAMETERS, QueryParameters
from messages.result import Result
from petstream.demo_samples import Sample
from producers.answer_log import AnswerLog
from producers.load import Submitter
from producers.new_query import new_query
from producers.outstanding import Outstanding
from producers.ticket import Answer, Ticket

SETTLE_S = 1.0
"""How long to look for a second answer after the last query was answered."""


@dataclass(slots=True)
class Exchange:
    """One query of the demo and what came back."""

    sample: Sample
    is_steady: bool
    ticket: Ticket
    sent_s: float
    """Intended send time on the monotonic clock, so that a late send counts as latency."""
    answered_s: float | None = None
    """None until there is an answer: a query without one is infinitely late."""
    answer: Answer | None = None

    @property
    def latency_ms(self) -> float | None:
        """Milliseconds from the intended send to the answer."""
        return None if self.answered_s is None else 1000 * (self.answered_s - self.sent_s)

    @property
    def is_correct(self) -> bool:
        """Whether the answer gives exactly the labels, or spans, that people gave."""
        return (
            isinstance(self.answer, Result)
            and set(self.answer.labels) == set(self.sample.labels)
            and self.answer.tags == self.sample.tags
        )


@dataclass(slots=True)
class TerminalRecords:
    """Counts the terminal records of each query, read from the results topic by itself.

    The client drops second answers, so it cannot be the witness that there are none.
    """

    log: AnswerLog
    counts: Counter[Origin] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Read in a thread of its own."""
        self._thread = threading.Thread(target=self._read, name="terminal-records")
        self._thread.start()

    def stop(self) -> None:
        """Stop reading."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.log.close()

    def _read(self) -> None:
        while not self._stop.is_set():
            for record in self.log.read(0.2):
                try:
                    answer = decode_answer(record.value, record.headers)
                except MessageError:
                    continue  # another writer's; ours would be missed below, as lost
                self.counts[answer.origin] += 1


def send_and_wait(
    client: Submitter,
    samples: Sequence[Sample],
    *,
    rate: float | None,
    limit_s: float,
    on_answer: Callable[[], None],
    parameters: QueryParameters = NO_PARAMETERS,
) -> list[Exchange]:
    """Publish every sample, wait for the answers, and give up on those that are late.

    Args:
        client: Connected to the namespace.
        samples: What to ask.
        rate: Queries/s; None publishes them as fast as they can be.
        limit_s: How long to wait for the answers after the last was published.
        on_answer: Called on the client's thread for every answer.
        parameters: Of every query.

    Raises:
        ClientError: If a query cannot be published.
    """
    exchanges: list[Exchange] = []
    outstanding = Outstanding(client.give_up)
    started_s = time.monotonic()
    for number, sample in enumerate(samples):
        due_s = time.monotonic() if rate is None else started_s + number / rate
        time.sleep(max(0.0, due_s - time.monotonic()))
        ticket = client.submit(new_query(sample.task, sample.text, parameters=parameters))
        exchange = Exchange(sample, rate is not None, ticket, due_s)
        exchanges.append(exchange)
        outstanding.add(ticket, partial(_record, exchange, on_answer))
    outstanding.settle_all(limit_s)
    return exchanges


def _record(exchange: Exchange, on_answer: Callable[[], None]) -> None:
    answered = exchange.ticket.answered
    if not answered.cancelled() and answered.exception() is None:
        exchange.answered_s = time.monotonic()
        exchange.answer = answered.result()
        on_answer()


def is_error(exchange: Exchange) -> bool:
    """Tell whether the query was answered with an error."""
    return isinstance(exchange.answer, ErrorAnswer)
