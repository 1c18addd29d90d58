"""Questions out, answers in: what the sync and the asyncio client have in common.

How to wait, and how many queries may be under way at once, is the clients' affair; nothing here
waits for an answer.
"""

import threading

from confluent_kafka import KafkaException

from messages.answer_codec import decode_answer
from messages.digest import input_digest
from messages.errors import MessageError
from messages.headers import ID
from messages.origin import Origin
from messages.query import Query
from messages.query_codec import encode_query
from messages.topics import TopicNames
from producers.answer_log import AnswerLog
from producers.answer_stream import AnswerStream, StreamState
from producers.connection import Connection
from producers.errors import (
    AnswersLost,
    AnswerUnreadable,
    ClientClosed,
    ClientError,
    ConnectionFailed,
    PublishError,
    PublishRejected,
)
from producers.positions import Positions, beginnings, ends
from producers.publisher import Publisher
from producers.ticket import Ticket, TicketBook
from transport.admin import admin_client, topic_ids
from transport.errors import BrokerUnreachable
from transport.records import Record


class Exchange:
    """Publishes queries and matches the answers to them."""

    def __init__(self, connection: Connection) -> None:
        """Connect.

        Raises:
            ConnectionFailed: If no broker answers or the namespace has no topics.
        """
        self._connection = connection
        self._topics = TopicNames(connection.namespace)
        self._admin = admin_client(connection.kafka)
        self._ends_at_start = self._ends()
        self._publisher = Publisher(
            connection.kafka.query_producer(), self._topics.queries, self._id_of_query_topic()
        )
        self._book = TicketBook()
        # Guards that a ticket is opened only while a thread reads, or it would wait for nothing.
        self._reading = threading.Lock()
        self._reader: threading.Thread | None = None
        self._closed = threading.Event()

    def submit(self, query: Query, *, key: bytes | None = None, wants_answer: bool) -> Ticket:
        """Publish `query` and return at once.

        Args:
            query: What to ask.
            key: The record's key, which its answer carries too; by default the query's id.
            wants_answer: Whether `answered` of the ticket is to be settled.

        Raises:
            PublisherFull: If the producer's queue has no room now.
            PublishRejected: If the query is none of the wire contract or can never be sent.
            ClientClosed: After `close`.
            ConnectionFailed: If reading of answers cannot begin.
        """
        try:
            message = encode_query(query, encoding=self._connection.encoding)
        except MessageError as error:
            raise PublishRejected(str(error)) from error
        ticket = Ticket(query, input_digest(query.text, query.text_pair))
        if wants_answer:
            self.start_reading(ticket)

        def on_delivery(outcome: Origin | PublishError) -> None:
            if isinstance(outcome, Origin):
                self._book.acknowledge(ticket, outcome)
            else:
                self._book.refuse(ticket, outcome)

        try:
            self._publisher.publish(
                message.value, key or query.id.encode(), message.headers, on_delivery
            )
        except BaseException:
            self._book.drop(ticket)
            raise
        return ticket

    def give_up(self, ticket: Ticket) -> None:
        """Expect no answer to `ticket` any more; `answered` is cancelled if it is not settled."""
        self._book.drop(ticket)
        ticket.answered.cancel()

    @property
    def is_reading(self) -> bool:
        """Whether `start_reading` has nothing left to do but to open a ticket."""
        return self._reader is not None

    def start_reading(self, ticket: Ticket | None = None) -> None:
        """Begin to read answers, unless that has begun, and expect one to `ticket`.

        The ends of the results topic are taken here, before the query is published, so that its
        answer cannot stand before them.
        """
        with self._reading:
            if self._closed.is_set():
                raise ClientClosed("the client is closed")
            if self._reader is None:
                log = self._open_log(self._ends())
                self._reader = threading.Thread(
                    target=self._read_answers, args=(log,), name="petstream-reader", daemon=True
                )
                self._reader.start()
            if ticket is not None:
                self._book.open(ticket)

    def open_stream(
        self,
        *,
        from_beginning: bool = False,
        idle_timeout_s: float | None = None,
        resume: StreamState | None = None,
    ) -> AnswerStream:
        """Open a reader of all answers of the namespace; its owner closes it.

        It begins with what was published after this exchange connected, at the beginning of the
        topic, or where `resume` says.
        """
        start = self._ends_at_start
        if from_beginning or resume is not None:
            start = beginnings(self._admin, self._topics.results, self._timeout_s)
        if resume is not None:
            start = {**start, **dict(resume.positions)}
        return AnswerStream(self._open_log(start), idle_timeout_s=idle_timeout_s, resume=resume)

    def close(self, timeout_s: float) -> None:
        """Deliver what was published, fail what still waits for an answer, and stop."""
        with self._reading:
            self._closed.set()
            reader = self._reader
        self._publisher.close(timeout_s)
        if reader is not None:
            reader.join()

    @property
    def _timeout_s(self) -> float:
        return self._connection.timeout_s

    def _ends(self) -> Positions:
        return ends(self._admin, self._topics.results, self._timeout_s)

    def _open_log(self, start: Positions) -> AnswerLog:
        return AnswerLog(self._connection.kafka.reader(), self._topics.results, start)

    def _id_of_query_topic(self) -> str:
        topic, kafka = self._topics.queries, self._connection.kafka
        try:
            ids = topic_ids(self._admin, [topic], kafka)
        except BrokerUnreachable as error:
            raise ConnectionFailed(str(error)) from error
        if topic not in ids:
            raise ConnectionFailed(f"topic {topic} does not exist: run petstream topics create")
        return ids[topic]

    def _read_answers(self, log: AnswerLog) -> None:
        error: ClientError = ClientClosed("the client was closed before the answer came")
        try:
            with log:
                while not self._closed.is_set():
                    for record in log.read(0.2):
                        self._match(record)
        except (AnswersLost, ConnectionFailed) as cause:
            error = cause
        except KafkaException as cause:
            error = ConnectionFailed(f"{self._topics.results}: {cause.args[0].str()}")
        finally:
            with self._reading:
                self._reader = None
                self._book.fail_all(error)

    def _match(self, record: Record) -> None:
        query_id = next((value for name, value in record.headers if name == ID), None) or b""
        name = query_id.decode(errors="replace")
        # Most records of a shared topic are other clients': they are not worth decoding.
        if not self._book.awaits(name):
            return
        try:
            self._book.offer(decode_answer(record.value, record.headers))
        except MessageError as error:
            where = f"{record.source}/{record.offset}"
            self._book.offer_unreadable(name, AnswerUnreadable(f"{where}: {error}"))
