"""A query under way, and the book that matches answers to the queries of this client.

Pure: no Kafka and no clock. The acknowledgement of a query and its answer come on two threads and
in either order, so an answer that comes first is kept until the acknowledgement says whose it is.
"""

import threading
from collections import defaultdict
from concurrent.futures import Future, InvalidStateError
from typing import TypeVar

from messages.errors import ErrorAnswer
from messages.origin import Origin
from messages.query import Query
from messages.result import Result
from producers.errors import AnswerMismatch, AnswerUnreadable, ClientError, PublishError

Answer = Result | ErrorAnswer

_T = TypeVar("_T")


class Ticket:
    """One query under way.

    Callbacks added to the futures run on the client's own threads and must be short.
    """

    __slots__ = ("answered", "early", "input_digest", "published", "query")

    def __init__(self, query: Query, input_digest: bytes) -> None:
        self.query = query
        self.input_digest = input_digest
        self.published: Future[Origin] = Future()
        """Where the query stands in the query topic; fails with `PublishError`."""
        self.answered: Future[Answer] = Future()
        """Its terminal record; fails with any other `ClientError`."""
        self.early: list[Answer] = []

    @property
    def origin(self) -> Origin | None:
        """Where the query stands in the query topic; None before it is acknowledged."""
        done = self.published.done() and not self.published.cancelled()
        if not done or self.published.exception() is not None:
            return None
        return self.published.result()


class TicketBook:
    """All queries of a client that wait for an answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Several queries may wait under one id: ids are the caller's, origins are the broker's.
        self._by_id: defaultdict[str, list[Ticket]] = defaultdict(list)

    def __len__(self) -> int:
        with self._lock:
            return sum(len(tickets) for tickets in self._by_id.values())

    def open(self, ticket: Ticket) -> None:
        """Expect an answer to `ticket`. To be called before the query is published."""
        with self._lock:
            self._by_id[ticket.query.id].append(ticket)

    def drop(self, ticket: Ticket) -> None:
        """Expect no answer any more; unknown tickets are ignored."""
        with self._lock:
            tickets = self._by_id.get(ticket.query.id, [])
            if ticket in tickets:
                tickets.remove(ticket)
            if not tickets:
                self._by_id.pop(ticket.query.id, None)

    def awaits(self, query_id: str) -> bool:
        """Tell whether an answer with this id may be ours, before its value is decoded."""
        with self._lock:
            return query_id in self._by_id

    def acknowledge(self, ticket: Ticket, origin: Origin) -> None:
        """The broker has stored the query at `origin`."""
        settle(ticket.published, origin)
        with self._lock:
            early = next((a for a in ticket.early if same_origin(a.origin, origin)), None)
            ticket.early.clear()
        if early is not None:
            self._resolve(ticket, early)

    def refuse(self, ticket: Ticket, error: PublishError) -> None:
        """The query was not stored, or nobody knows."""
        self.drop(ticket)
        settle(ticket.published, error)
        settle(ticket.answered, error)

    def offer(self, answer: Answer) -> None:
        """Give an answer to the ticket whose query it answers, if there is one."""
        with self._lock:
            # Each origin is looked at once: it may be set at any moment, and a ticket that has none
            # here is looked through for early answers only after this lock is free again.
            origins = [(ticket, ticket.origin) for ticket in self._by_id.get(answer.id, [])]
            owner = next((t for t, origin in origins if same_origin(origin, answer.origin)), None)
            if owner is None:
                for ticket, origin in origins:
                    if origin is None:
                        ticket.early.append(answer)
        if owner is not None:
            self._resolve(owner, answer)

    def offer_unreadable(self, query_id: str, error: AnswerUnreadable) -> None:
        """Fail those who wait under an id whose answer cannot be decoded."""
        with self._lock:
            tickets = tuple(self._by_id.get(query_id, ()))
        for ticket in tickets:
            self.drop(ticket)
            settle(ticket.answered, error)

    def fail_all(self, error: ClientError) -> None:
        """Nobody will be answered any more."""
        with self._lock:
            tickets = [ticket for waiting in self._by_id.values() for ticket in waiting]
            self._by_id.clear()
        for ticket in tickets:
            settle(ticket.answered, error)

    def _resolve(self, ticket: Ticket, answer: Answer) -> None:
        self.drop(ticket)
        # An error may be about bytes that had no text to digest; a result always has one.
        digest_is_due = isinstance(answer, Result) or answer.input_digest
        if digest_is_due and answer.input_digest != ticket.input_digest:
            settle(
                ticket.answered,
                AnswerMismatch(
                    f"the answer at {answer.origin} is to another text than query {answer.id}: "
                    f"digest {answer.input_digest.hex()}, asked {ticket.input_digest.hex()}"
                ),
            )
        else:
            settle(ticket.answered, answer)


def same_origin(one: Origin | None, other: Origin) -> bool:
    """Tell whether both are the same record; an unknown topic id matches every topic id."""
    return one is not None and (
        (one.topic, one.partition, one.offset) == (other.topic, other.partition, other.offset)
        and (one.topic_id == other.topic_id or not one.topic_id or not other.topic_id)
    )


def settle(future: Future[_T], outcome: _T | BaseException) -> None:
    """Set the outcome of a future, unless its caller has given up on it meanwhile."""
    try:
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
    except InvalidStateError:
        return
