"""The client for programs that wait: one call asks, the same call returns the answer."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Self, TypeVar

from messages.errors import ErrorAnswer
from messages.origin import Origin
from messages.query import Query
from messages.result import Result
from producers.answer_stream import AnswerStream, StreamState
from producers.connection import Connection
from producers.errors import (
    AnswerTimeout,
    ClientBusy,
    ClientError,
    PublishDoubtful,
    task_error,
)
from producers.exchange import Exchange
from producers.publisher import PublisherFull
from producers.ticket import Answer, Ticket
from transport.deadline import Deadline

T = TypeVar("T")

# How long to leave a full producer queue alone: about one batch at the default linger.
_FULL_QUEUE_PAUSE_S = 0.005


class Client:
    """Publishes queries and waits for their answers. Safe to use from several threads.

    At most `max_in_flight` queries of one client are under way; further calls wait for room, so
    a fast caller cannot fill this process's memory.
    """

    def __init__(
        self, connection: Connection | str, *, max_in_flight: int = 1_000, timeout_s: float = 30.0
    ) -> None:
        """Connect.

        Args:
            connection: Where to, or just the bootstrap servers.
            max_in_flight: Queries under way at once.
            timeout_s: How long calls wait that do not say it themselves.

        Raises:
            ConnectionFailed: If no broker answers or the namespace has no topics.
        """
        if max_in_flight < 1:
            raise ValueError(f"expected max_in_flight >= 1, got {max_in_flight}")
        self._exchange = Exchange(Connection.of(connection))
        self._timeout_s = timeout_s
        self._max_in_flight = max_in_flight
        self._slots = threading.BoundedSemaphore(max_in_flight)

    def publish(
        self, query: Query, *, key: bytes | None = None, timeout_s: float | None = None
    ) -> Origin:
        """Publish `query`; return its origin once the broker has stored it.

        Raises:
            PublishRejected: If it is certainly not stored.
            PublishDoubtful: If it may be stored, but that was not acknowledged in time.
            ClientBusy: If no room came free in time.
        """
        deadline = self._deadline(timeout_s)
        ticket = self._submit(query, key, deadline, wants_answer=False)
        return self._origin(ticket, deadline)

    def ask(
        self, query: Query, *, key: bytes | None = None, timeout_s: float | None = None
    ) -> Result:
        """Publish `query` and wait for its answer.

        The wait is the caller's; it is `ttl_ms` of the query that tells the service to answer
        with an error rather than late.

        Raises:
            TaskError: If the service answered with an error; the subclass says of which kind.
            AnswerTimeout: If no answer came in time.
            PublishError: If the query was not stored.
            ClientBusy: If no room came free in time.
            AnswerMismatch: If the answer is to another text.
        """
        deadline = self._deadline(timeout_s)
        return self._result(self._submit(query, key, deadline, wants_answer=True), deadline)

    def ask_many(
        self, queries: Iterable[Query], *, timeout_s: float | None = None
    ) -> Iterator[Result | ClientError]:
        """Ask all queries, many at a time; give their outcomes in the order of the queries.

        What went wrong with one query is given in its place and not raised, so that it costs none
        of the others. `queries` is drawn from only as room comes free.

        Args:
            queries: May be endless.
            timeout_s: For each query, from when it was drawn.
        """
        return self._in_order(queries, self._result, timeout_s, wants_answer=True)

    def publish_many(
        self, queries: Iterable[Query], *, timeout_s: float | None = None
    ) -> Iterator[Origin | ClientError]:
        """Publish all queries, many at a time; give their origins in the order of the queries.

        As `ask_many` otherwise.
        """
        return self._in_order(queries, self._origin, timeout_s, wants_answer=False)

    def submit(self, query: Query, *, key: bytes | None = None) -> Ticket:
        """Publish `query` and return at once with its two futures, origin and answer.

        Waits only for room. The room is taken until `answered` is settled or cancelled.
        """
        deadline = self._deadline(None)
        return self._submit(query, key, deadline, wants_answer=True)

    def give_up(self, ticket: Ticket) -> None:
        """Expect no answer to `ticket` any more, and make room."""
        self._exchange.give_up(ticket)

    def results(
        self,
        *,
        from_beginning: bool = False,
        idle_timeout_s: float | None = None,
        resume: StreamState | None = None,
    ) -> AnswerStream:
        """Return an iterator over all answers of the namespace, each once; close it after use.

        It begins with what was published after this client connected.

        Args:
            from_beginning: Begin with the oldest answer that is kept.
            idle_timeout_s: End when no answer came for so long; None: never.
            resume: Go on where another iterator stood, by its `state()`.
        """
        return self._exchange.open_stream(
            from_beginning=from_beginning, idle_timeout_s=idle_timeout_s, resume=resume
        )

    def close(self, timeout_s: float = 10.0) -> None:
        """Deliver what was published; calls that still wait get `ClientClosed`."""
        self._exchange.close(timeout_s)

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline(self._timeout_s if timeout_s is None else timeout_s)

    def _submit(
        self, query: Query, key: bytes | None, deadline: Deadline, *, wants_answer: bool
    ) -> Ticket:
        if not self._slots.acquire(timeout=deadline.left_s):
            raise ClientBusy(f"{self._max_in_flight} queries are under way")
        try:
            while True:
                try:
                    ticket = self._exchange.submit(query, key=key, wants_answer=wants_answer)
                    break
                except PublisherFull:
                    if deadline.has_passed:
                        raise ClientBusy("the producer's queue is full") from None
                    time.sleep(_FULL_QUEUE_PAUSE_S)
        except BaseException:
            self._slots.release()
            raise
        last = ticket.answered if wants_answer else ticket.published
        last.add_done_callback(lambda _: self._slots.release())
        return ticket

    def _in_order(
        self,
        queries: Iterable[Query],
        settle: Callable[[Ticket, Deadline], T],
        timeout_s: float | None,
        *,
        wants_answer: bool,
    ) -> Iterator[T | ClientError]:
        under_way: deque[tuple[Ticket | ClientError, Deadline]] = deque()

        def first() -> T | ClientError:
            ticket, deadline = under_way.popleft()
            if isinstance(ticket, ClientError):
                return ticket
            try:
                return settle(ticket, deadline)
            except ClientError as error:
                return error

        try:
            for query in queries:
                if len(under_way) >= self._max_in_flight:
                    yield first()
                deadline = self._deadline(timeout_s)
                ticket: Ticket | ClientError
                try:
                    ticket = self._submit(query, None, deadline, wants_answer=wants_answer)
                except ClientError as error:
                    ticket = error
                under_way.append((ticket, deadline))
                while under_way and _is_settled(under_way[0][0], wants_answer=wants_answer):
                    yield first()
            while under_way:
                yield first()
        finally:
            for left, _ in under_way:
                if isinstance(left, Ticket):
                    self._exchange.give_up(left)

    def _origin(self, ticket: Ticket, deadline: Deadline) -> Origin:
        try:
            return ticket.published.result(deadline.left_s)
        except TimeoutError:
            raise PublishDoubtful(f"query {ticket.query.id} was not acknowledged in time") from None

    def _result(self, ticket: Ticket, deadline: Deadline) -> Result:
        try:
            answer = ticket.answered.result(deadline.left_s)
        except TimeoutError:
            raise AnswerTimeout(ticket.query.id, ticket.origin) from None
        finally:
            self._exchange.give_up(ticket)
        return unwrap(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unwrap(answer: Answer) -> Result:
    """Return the result, or raise the error that the service answered with."""
    if isinstance(answer, ErrorAnswer):
        raise task_error(answer)
    return answer


def _is_settled(ticket: Ticket | ClientError, *, wants_answer: bool) -> bool:
    if isinstance(ticket, ClientError):
        return True
    return (ticket.answered if wants_answer else ticket.published).done()
