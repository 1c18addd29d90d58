"""Traffic of a fault run: queries with a ledger, and a reader who is there all the time."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Self

from messages.origin import Origin
from messages.query import Query
from messages.topics import TopicNames
from producers.answer_log import AnswerLog
from producers.client import Client
from producers.errors import ClientError, PublishRejected
from producers.ticket import Ticket
from tests.faults.ledger import Ledger
from transport.settings import KafkaSettings


class Sender:
    """Publishes queries on a thread, as fast as the client has room, and keeps the ledger."""

    def __init__(self, client: Client, queries: Sequence[Query], ledger: Ledger) -> None:
        self.tickets: list[Ticket] = []
        self._client = client
        self._queries = queries
        self._ledger = ledger
        self._lock = threading.Lock()
        self._num_settled = 0
        self._thread = threading.Thread(target=self._send, name="sender")
        self._thread.start()

    @property
    def num_settled(self) -> int:
        """How many queries have their answer, or never will."""
        return self._num_settled

    def join(self, timeout_s: float) -> None:
        """Wait until everything is sent and settled.

        Raises:
            TimeoutError: If it is not in time.
        """
        self._thread.join(timeout_s)
        waited = wait([ticket.answered for ticket in self.tickets], timeout_s)
        unsent = len(self._queries) - len(self.tickets)
        if unsent or waited.not_done:
            raise TimeoutError(f"{unsent} queries unsent, {len(waited.not_done)} unanswered")

    def _send(self) -> None:
        for query in self._queries:
            self._ledger.invoke(query)
            try:
                ticket = self._client.submit(query)
            except PublishRejected as error:
                self._ledger.fail(query.id, str(error))
                self._settle()
                continue
            except ClientError as error:
                # Closed, or no room for too long: the rest stays unsent, which `join` reports.
                self._ledger.fail(query.id, str(error))
                return
            self.tickets.append(ticket)
            ticket.published.add_done_callback(self._recorder(query.id))
            ticket.answered.add_done_callback(self._settle)

    def _recorder(self, query_id: str) -> Callable[[Future[Origin]], None]:
        def record(published: Future[Origin]) -> None:
            error = published.exception()
            if error is None:
                self._ledger.ok(query_id, published.result())
            elif isinstance(error, PublishRejected):
                self._ledger.fail(query_id, str(error))
            else:
                self._ledger.info(query_id, str(error))

        return record

    def _settle(self, _: object = None) -> None:
        with self._lock:
            self._num_settled += 1


class LiveReader:
    """Reads the results as they become visible, and remembers the place of each."""

    def __init__(self, kafka: KafkaSettings, topics: TopicNames, num_partitions: int) -> None:
        self.seen: list[tuple[int, int]] = []
        """(partition, offset), in the order of reading."""
        start = dict.fromkeys(range(num_partitions), 0)
        self._log = AnswerLog(kafka.reader(), topics.results, start)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="live-reader")

    def _read(self) -> None:
        # One more turn after the end: what is visible by then is to be seen.
        while not self._stop.is_set():
            self._take(0.2)
        while self._take(2.0):
            pass

    def _take(self, timeout_s: float) -> int:
        records = self._log.read(timeout_s)
        self.seen.extend((record.partition, record.offset) for record in records)
        return len(records)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._log.close()
