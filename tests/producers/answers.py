"""Answers for tests of the client."""

from messages.errors import ErrorAnswer, Reason
from messages.origin import Origin
from messages.query import Query
from messages.result import Result
from producers.new_query import new_query
from producers.ticket import Ticket


def ask(text: str = "Where is my card?", *, query_id: str | None = None) -> Query:
    """A query about `text`."""
    return new_query("banking77", text, query_id=query_id)


def at(offset: int, *, partition: int = 0, topic_id: str = "topic-id") -> Origin:
    """An origin in the query topic of the tests."""
    return Origin("petstream.queries", topic_id, partition, offset)


def result_for(ticket: Ticket, origin: Origin, *, digest: bytes | None = None) -> Result:
    """A right answer to `ticket`, or one with another digest."""
    return Result(
        id=ticket.query.id,
        task=ticket.query.task,
        task_revision=1,
        origin=origin,
        level=0,
        confidence=0.9,
        labels=("lost_card",),
        scores=(0.9,),
        input_digest=ticket.input_digest if digest is None else digest,
    )


def error_for(ticket: Ticket, origin: Origin, reason: Reason = Reason.TASK_UNKNOWN) -> ErrorAnswer:
    """An error answer to `ticket`."""
    return ErrorAnswer(
        id=ticket.query.id,
        task=ticket.query.task,
        origin=origin,
        reason=reason,
        message="no such task",
        stage="validate",
    )
