"""Answers find their queries by origin, in whatever order acknowledgement and answer come."""

import threading
from itertools import permutations

import pytest

from messages.digest import input_digest
from messages.errors import Reason
from messages.origin import Origin
from messages.query import Query
from producers.errors import (
    AnswerMismatch,
    AnswerUnreadable,
    ClientClosed,
    PublishDoubtful,
    PublishRejected,
)
from producers.ticket import Ticket, TicketBook
from tests.producers.answers import ask, at, error_for, result_for


def open_ticket(book: TicketBook, query: Query | None = None) -> Ticket:
    """Open a ticket that is not acknowledged yet."""
    query = query or ask()
    ticket = Ticket(query, input_digest(query.text, query.text_pair))
    book.open(ticket)
    return ticket


def test_an_answer_after_the_acknowledgement_resolves_its_ticket() -> None:
    """The usual order."""
    book = TicketBook()
    ticket = open_ticket(book)
    answer = result_for(ticket, at(7))

    book.acknowledge(ticket, at(7))
    book.offer(answer)

    assert ticket.published.result(0) == at(7)
    assert ticket.answered.result(0) is answer
    assert len(book) == 0


def test_an_answer_before_the_acknowledgement_is_kept_for_it() -> None:
    """The delivery report may be slower than the whole service."""
    book = TicketBook()
    ticket = open_ticket(book)

    book.offer(result_for(ticket, at(7)))
    assert not ticket.answered.done()
    book.acknowledge(ticket, at(7))

    assert ticket.answered.result(0).origin == at(7)


@pytest.mark.parametrize("order", list(permutations(["ack 0", "ack 1", "answer 0", "answer 1"])))
def test_queries_of_one_id_get_their_own_answers(order: tuple[str, ...]) -> None:
    """Ids are the caller's and may repeat; the origin decides, in all 24 orders of events."""
    book = TicketBook()
    tickets = [open_ticket(book, ask(f"text {n}", query_id="same")) for n in range(2)]
    answers = [result_for(ticket, at(n)) for n, ticket in enumerate(tickets)]

    for event in order:
        kind, n = event.split()
        if kind == "ack":
            book.acknowledge(tickets[int(n)], at(int(n)))
        else:
            book.offer(answers[int(n)])

    assert [ticket.answered.result(0) for ticket in tickets] == answers
    assert len(book) == 0


def test_an_answer_to_the_same_id_of_another_client_is_not_ours() -> None:
    """Two clients that count their queries from 1 share a results topic."""
    book = TicketBook()
    ticket = open_ticket(book, ask(query_id="1"))

    book.offer(result_for(ticket, at(3, partition=5)))
    book.acknowledge(ticket, at(7))
    book.offer(result_for(ticket, at(3, partition=5)))
    assert not ticket.answered.done()
    book.offer(result_for(ticket, at(7)))

    assert ticket.answered.result(0).origin == at(7)


def test_an_answer_of_an_earlier_topic_of_the_name_is_not_ours() -> None:
    """A recreated topic counts from 0 again; its id tells them apart."""
    book = TicketBook()
    ticket = open_ticket(book)
    book.acknowledge(ticket, at(7, topic_id="new"))

    book.offer(result_for(ticket, at(7, topic_id="old")))
    assert not ticket.answered.done()
    book.offer(result_for(ticket, at(7, topic_id="")))

    assert ticket.answered.done()


def test_an_answer_to_another_text_is_refused() -> None:
    """The digest shows answers that were swapped inside the service."""
    book = TicketBook()
    ticket = open_ticket(book)
    book.acknowledge(ticket, at(7))

    book.offer(result_for(ticket, at(7), digest=input_digest("another text")))

    with pytest.raises(AnswerMismatch, match="another text"):
        ticket.answered.result(0)


def test_a_result_without_digest_is_refused_and_an_error_is_not() -> None:
    """An error may be about bytes without a text; a result cannot."""
    book = TicketBook()
    with_result, with_error = open_ticket(book), open_ticket(book)
    book.acknowledge(with_result, at(1))
    book.acknowledge(with_error, at(2))

    book.offer(result_for(with_result, at(1), digest=b""))
    book.offer(error_for(with_error, at(2)))

    with pytest.raises(AnswerMismatch):
        with_result.answered.result(0)
    assert with_error.answered.result(0) == error_for(with_error, at(2), Reason.TASK_UNKNOWN)


@pytest.mark.parametrize("error", [PublishRejected("too large"), PublishDoubtful("timed out")])
def test_a_refused_query_has_neither_origin_nor_answer(
    error: PublishRejected | PublishDoubtful,
) -> None:
    """Both futures fail with what is known."""
    book = TicketBook()
    ticket = open_ticket(book)

    book.refuse(ticket, error)

    assert ticket.published.exception(0) is error
    assert ticket.answered.exception(0) is error
    assert ticket.origin is None
    assert len(book) == 0


def test_a_dropped_ticket_frees_its_place_and_ignores_its_answer() -> None:
    """A caller who has gone leaves nothing behind."""
    book = TicketBook()
    ticket = open_ticket(book)
    book.acknowledge(ticket, at(7))

    book.drop(ticket)
    book.drop(ticket)
    book.offer(result_for(ticket, at(7)))

    assert not ticket.answered.done()
    assert not book.awaits(ticket.query.id)


def test_an_answer_to_a_cancelled_future_is_no_error() -> None:
    """The caller may give up in the moment in which the answer comes."""
    book = TicketBook()
    ticket = open_ticket(book)
    book.acknowledge(ticket, at(7))

    ticket.answered.cancel()
    book.offer(result_for(ticket, at(7)))

    assert ticket.answered.cancelled()


def test_an_unreadable_answer_fails_those_who_wait_for_its_id() -> None:
    """Waiting for the time-out would only hide what is wrong."""
    book = TicketBook()
    ticket, other = open_ticket(book), open_ticket(book)

    book.offer_unreadable(ticket.query.id, AnswerUnreadable("results/0/1: TRUNCATED"))

    with pytest.raises(AnswerUnreadable):
        ticket.answered.result(0)
    assert not other.answered.done()


def test_closing_fails_everyone_who_waits() -> None:
    """Nobody waits for a reader that has ended."""
    book = TicketBook()
    tickets = [open_ticket(book) for _ in range(3)]

    book.fail_all(ClientClosed("closed"))

    assert all(isinstance(t.answered.exception(0), ClientClosed) for t in tickets)
    assert len(book) == 0


class AcknowledgedWhileLookedAt(Ticket):
    """Acknowledged at the moment in which an offered answer looks whose it is."""

    __slots__ = ("acknowledge",)
    acknowledge: threading.Thread | None

    @property
    def origin(self) -> Origin | None:
        """None once, and set from then on."""
        origin = super().origin
        thread, self.acknowledge = self.acknowledge, None
        if thread is not None:
            thread.start()
            self.published.result(60)
        return origin


def test_an_answer_offered_in_the_moment_of_acknowledgement_is_not_lost() -> None:
    """It is kept, although the origin was set while the book looked for its owner."""
    book = TicketBook()
    ticket = AcknowledgedWhileLookedAt(ask(), b"digest!!")
    acknowledge = threading.Thread(target=book.acknowledge, args=(ticket, at(0)))
    ticket.acknowledge = acknowledge
    book.open(ticket)

    book.offer(result_for(ticket, at(0)))
    acknowledge.join()

    assert ticket.answered.result(0).origin == at(0)


def test_acknowledgements_and_answers_race_without_loss() -> None:
    """Two threads, 5,000 queries: each is answered by its own answer."""
    book = TicketBook()
    tickets = [open_ticket(book, ask(f"text {n}", query_id=f"{n % 7}")) for n in range(5_000)]
    start = threading.Barrier(2)

    def acknowledge() -> None:
        start.wait()
        for n, ticket in enumerate(tickets):
            book.acknowledge(ticket, at(n))

    def answer() -> None:
        start.wait()
        for n, ticket in enumerate(tickets):
            book.offer(result_for(ticket, at(n)))

    threads = [threading.Thread(target=work) for work in (acknowledge, answer)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [ticket.answered.result(0).origin.offset for ticket in tickets] == list(range(5_000))
