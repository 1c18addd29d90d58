"""Checks the logs of a run against its ledger and against an oracle.

Pure: bytes in, violations out. Every invariant has a name, and `test_checker.py` breaks each of
them to show that the checker sees it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from messages.answer_codec import decode_answer
from messages.errors import ErrorAnswer, MessageError
from messages.query_codec import IncomingQuery, decode_query
from messages.result import Result
from tests.faults.ledger import Publication
from transport.records import Record

Answer = Result | ErrorAnswer
Place = tuple[int, int]
"""Partition and offset in the query topic."""


class Invariant(StrEnum):
    """What must hold after every run."""

    NO_LOSS = "every query has an answer"
    NO_DUPLICATE = "no query has two visible answers"
    NO_LOST_WRITE = "every acknowledged query is where the broker said, with its own bytes"
    NO_INVENTION = "every answer belongs to a query"
    READABLE = "every answer can be decoded"
    RIGHT_DIGEST = "an answer carries the digest of its query's text"
    RIGHT_ANSWER = "an answer says what the oracle says"
    RIGHT_ADDRESS = "an answer carries the id, task, key and encoding of its query"
    DEAD_LETTER = "what was rejected has its bytes and its reason in the dead letters, once"
    SEEN_LIVE = "a reader that was there all the time saw what the final dump shows"


@dataclass(frozen=True, slots=True)
class Violation:
    """One breach of one invariant."""

    invariant: Invariant
    detail: str


Complaint = Callable[[IncomingQuery | None, Record, Answer], str | None]
"""The oracle: says what is wrong with an answer to a query (None: undecodable), or None."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is left of a run."""

    publications: Sequence[Publication]
    queries: Sequence[Record]
    """The query topic, whole."""
    results: Sequence[Record]
    """The results topic, whole, as a read_committed reader sees it."""
    dead_letters: Sequence[Record]
    seen_live: Collection[tuple[int, int]] | None = None
    """(partition, offset) in the results topic of what a reader saw while it happened."""


def check(evidence: Evidence, complaint: Complaint) -> list[Violation]:
    """Return every breach of every invariant."""
    queries = {(record.partition, record.offset): record for record in evidence.queries}
    decoded = {place: _decode(record) for place, record in queries.items()}
    answers: defaultdict[Place, list[tuple[Record, Answer]]] = defaultdict(list)
    violations: list[Violation] = []
    for record in evidence.results:
        try:
            answer = decode_answer(record.value, record.headers)
        except MessageError as error:
            violations.append(Violation(Invariant.READABLE, f"{_at(record)}: {error}"))
            continue
        answers[answer.origin.partition, answer.origin.offset].append((record, answer))

    violations += _check_ledger(evidence.publications, queries, decoded)
    violations += _check_counts(queries, answers)
    for place in sorted(queries.keys() & answers.keys()):
        for record, answer in answers[place]:
            violations += _check_answer(queries[place], decoded[place], record, answer, complaint)
    violations += _check_dead_letters(queries, answers, evidence.dead_letters)
    if evidence.seen_live is not None:
        violations += _check_seen_live(evidence.results, evidence.seen_live)
    return violations


def _check_ledger(
    publications: Sequence[Publication],
    queries: dict[Place, Record],
    decoded: dict[Place, IncomingQuery | None],
) -> list[Violation]:
    violations = []
    for publication in publications:
        if publication.outcome != "ok":
            continue
        assert publication.partition is not None
        assert publication.offset is not None
        place = (publication.partition, publication.offset)
        incoming = decoded.get(place)
        if place not in queries:
            detail = f"query {publication.query_id} is not at {place}"
        elif incoming is None or incoming.query.id != publication.query_id:
            detail = f"another query than {publication.query_id} is at {place}"
        elif incoming.input_digest != publication.input_digest:
            detail = f"query {publication.query_id} at {place} has another text"
        else:
            continue
        violations.append(Violation(Invariant.NO_LOST_WRITE, detail))
    return violations


def _check_counts(
    queries: dict[Place, Record], answers: dict[Place, list[tuple[Record, Answer]]]
) -> list[Violation]:
    violations = []
    for place, record in queries.items():
        count = len(answers.get(place, ()))
        if count == 0:
            violations.append(Violation(Invariant.NO_LOSS, f"{_at(record)} has no answer"))
        elif count > 1:
            places = ", ".join(_at(answer) for answer, _ in answers[place])
            detail = f"{_at(record)} has {count} answers: {places}"
            violations.append(Violation(Invariant.NO_DUPLICATE, detail))
    topics = {record.topic for record in queries.values()}
    for place, given in answers.items():
        for record, answer in given:
            if place not in queries or answer.origin.topic not in topics:
                detail = f"{_at(record)} answers {answer.origin}, where no query is"
                violations.append(Violation(Invariant.NO_INVENTION, detail))
    return violations


def _check_answer(
    query_record: Record,
    incoming: IncomingQuery | None,
    record: Record,
    answer: Answer,
    complaint: Complaint,
) -> list[Violation]:
    violations = []
    where = f"{_at(record)}, answer to {_at(query_record)}"
    if incoming is not None:
        digest_is_due = isinstance(answer, Result) or answer.input_digest
        if digest_is_due and answer.input_digest != incoming.input_digest:
            violations.append(Violation(Invariant.RIGHT_DIGEST, where))
        wrong = _wrong_address(incoming, record, answer)
        if wrong:
            violations.append(Violation(Invariant.RIGHT_ADDRESS, f"{where}: {wrong}"))
    elif isinstance(answer, Result):
        detail = f"{where}: a result for bytes that are no query"
        violations.append(Violation(Invariant.RIGHT_ANSWER, detail))
    said = complaint(incoming, query_record, answer)
    if said is not None:
        violations.append(Violation(Invariant.RIGHT_ANSWER, f"{where}: {said}"))
    return violations


def _wrong_address(incoming: IncomingQuery, record: Record, answer: Answer) -> str | None:
    query = incoming.query
    task = query.task.partition("@")[0].partition(":")[0]
    if answer.id != query.id:
        return f"id {answer.id} instead of {query.id}"
    if answer.task.partition("@")[0].partition(":")[0] != task:
        return f"task {answer.task} instead of {task}"
    if record.key != incoming.reply.key:
        return "another key"
    content_type = dict(record.headers).get("content-type")
    if content_type != f"application/{incoming.reply.encoding}".encode():
        return f"content-type {content_type!r}"
    return None


def _check_dead_letters(
    queries: dict[Place, Record],
    answers: dict[Place, list[tuple[Record, Answer]]],
    dead_letters: Sequence[Record],
) -> list[Violation]:
    rejected = {
        place: answer.reason
        for place, given in answers.items()
        for _, answer in given
        if isinstance(answer, ErrorAnswer) and place in queries
    }
    violations = []
    counts: Counter[Place] = Counter()
    for letter in dead_letters:
        # Ours stand behind the record's own headers, so the last of a name is the true one.
        marks = {name: value or b"" for name, value in letter.headers}
        topic = marks["__streams.errors.topic"].decode()
        place = (
            int(marks["__streams.errors.partition"]),
            int(marks["__streams.errors.offset"]),
        )
        counts[place] += 1
        query = queries.get(place)
        if query is None or topic != query.topic or place not in rejected:
            detail = f"{_at(letter)} is of {topic} {place}, which was not rejected"
        elif letter.value != query.value or letter.key != query.key:
            detail = f"{_at(letter)} has other bytes than {_at(query)}"
        elif marks["petstream-error-code"].decode() != rejected[place]:
            detail = f"{_at(letter)} has another reason than the answer: {rejected[place]}"
        elif letter.headers[: len(query.headers)] != query.headers:
            detail = f"{_at(letter)} has lost headers of {_at(query)}"
        else:
            continue
        violations.append(Violation(Invariant.DEAD_LETTER, detail))
    for place, reason in rejected.items():
        if counts[place] != 1:
            detail = f"{place} ({reason}) has {counts[place]} dead letters"
            violations.append(Violation(Invariant.DEAD_LETTER, detail))
    return violations


def _check_seen_live(
    results: Sequence[Record], seen_live: Collection[tuple[int, int]]
) -> list[Violation]:
    final = {(record.partition, record.offset) for record in results}
    live = set(seen_live)
    return [
        Violation(Invariant.SEEN_LIVE, f"results/{p}/{o} was seen and is gone")
        for p, o in sorted(live - final)
    ] + [
        Violation(Invariant.SEEN_LIVE, f"results/{p}/{o} was never seen")
        for p, o in sorted(final - live)
    ]


def _decode(record: Record) -> IncomingQuery | None:
    if record.bad_header is not None:
        return None
    try:
        return decode_query(
            record.value,
            record.key,
            record.headers,
            partition=record.partition,
            offset=record.offset,
        )
    except MessageError:
        return None


def _at(record: Record) -> str:
    return f"{record.source}/{record.offset}"
