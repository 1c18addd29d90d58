"""Tickets whose answers somebody counts: waits until every one of them has been counted.

Waiting for the futures themselves is not enough: they wake a waiter before they run their
callbacks, so the last answers would be missing from a report that callbacks gather.
"""

import threading
from collections.abc import Callable

from producers.ticket import Ticket


class Outstanding:
    """Tells of each ticket, once, that it is settled. One thread adds and waits."""

    def __init__(self, give_up: Callable[[Ticket], None]) -> None:
        """Begin with no tickets.

        Args:
            give_up: Settles a ticket for which there is no more time: a client's `give_up`.
        """
        self._give_up = give_up
        self._tickets: set[Ticket] = set()
        self._told = threading.Condition()

    def add(self, ticket: Ticket, on_settled: Callable[[], None]) -> None:
        """Wait for `ticket`, too.

        Args:
            ticket: May be settled already.
            on_settled: Called on whatever thread settles the ticket.
        """
        with self._told:
            self._tickets.add(ticket)

        def settled(_: object) -> None:
            try:
                on_settled()
            finally:
                with self._told:
                    self._tickets.discard(ticket)
                    self._told.notify_all()

        ticket.answered.add_done_callback(settled)

    def settle_all(self, timeout_s: float) -> None:
        """Wait for the answers, at most `timeout_s`, and give up on the rest.

        On return `on_settled` of every ticket has returned.
        """
        with self._told:
            self._told.wait_for(lambda: not self._tickets, timeout_s)
            late = tuple(self._tickets)
        for ticket in late:
            self._give_up(ticket)
        with self._told:
            self._told.wait_for(lambda: not self._tickets)
