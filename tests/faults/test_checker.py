"""The negative controls: a checker that never failed proves nothing.

A run that is right has no violation. Then each test breaks one thing, in the bytes of the logs,
and the checker must name that thing and no other.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from messages.answer_codec import decode_answer, encode_answer
from messages.digest import input_digest
from messages.errors import ErrorAnswer, Reason
from messages.origin import Origin
from messages.query import Query
from messages.query_codec import IncomingQuery, decode_query, encode_query
from messages.reply import ReplyAddress
from messages.result import Result
from tests.faults.checker import Answer, Evidence, Invariant, check
from tests.faults.ledger import Publication
from transport.dead_letters import dead_letter
from transport.records import OutgoingRecord, Record

QUERIES = "petstream.queries"
NUM_PARTITIONS = 3
BAD = 4
"""Index of the query whose bytes are no query."""
Break = Callable[[Evidence], Evidence]


def oracle(incoming: IncomingQuery | None, _: Record, answer: Answer) -> str | None:
    """The right label is the text itself; bytes that are no query are TRUNCATED."""
    if incoming is None:
        is_right = isinstance(answer, ErrorAnswer) and answer.reason is Reason.TRUNCATED
    else:
        is_right = isinstance(answer, Result) and answer.labels == (incoming.query.text,)
    return None if is_right else "not what the oracle says"


def stored(outgoing: OutgoingRecord, partition: int, offset: int) -> Record:
    """The record as a reader finds it."""
    return Record(
        outgoing.topic,
        partition,
        offset,
        outgoing.key,
        outgoing.value,
        outgoing.headers,
        appended_ms=1,
    )


def answer_record(answer: Answer, reply: ReplyAddress, partition: int, offset: int) -> Record:
    """An answer in the results topic."""
    message = encode_answer(answer, reply)
    outgoing = OutgoingRecord("petstream.results", message.value, reply.key, message.headers)
    return stored(outgoing, partition, offset)


def right_run(count: int = 9) -> Evidence:
    """A run in which everything is right; query `BAD` is rejected, as it should be."""
    publications, queries, results, dead_letters = [], [], [], []
    for n in range(count):
        query = Query(f"id-{n}", "banking77", f"text {n}")
        message = encode_query(query)
        value = message.value[:5] if n == BAD else message.value
        partition, offset = n % NUM_PARTITIONS, n // NUM_PARTITIONS
        outgoing = OutgoingRecord(QUERIES, value, query.id.encode(), message.headers)
        record = stored(outgoing, partition, offset)
        origin = Origin(QUERIES, "", partition, offset)
        queries.append(record)
        if n == BAD:
            reply = ReplyAddress(record.key)
            error = ErrorAnswer(query.id, query.task, origin, Reason.TRUNCATED, "cut", "decode")
            results.append(answer_record(error, reply, partition, offset))
            letter = dead_letter(record, Reason.TRUNCATED, "cut", "decode", 1, "dlq")
            dead_letters.append(stored(letter, 0, 0))
            continue
        digest = input_digest(query.text)
        publications.append(Publication(query.id, query.task, digest, "ok", partition, offset))
        incoming = decode_query(
            value, record.key, record.headers, partition=partition, offset=offset
        )
        results.append(
            answer_record(
                Result(
                    query.id,
                    query.task,
                    1,
                    origin,
                    level=0,
                    confidence=0.5,
                    labels=(query.text,),
                    scores=(0.5,),
                    input_digest=digest,
                ),
                incoming.reply,
                partition,
                offset,
            )
        )
    seen = {(record.partition, record.offset) for record in results}
    return Evidence(publications, queries, results, dead_letters, seen)


def altered(record: Record, **changes: object) -> Record:
    """The answer record with other fields in its answer."""
    answer = decode_answer(record.value, record.headers)
    message = encode_answer(
        replace(answer, **changes),  # type: ignore[arg-type]
        ReplyAddress(record.key),
    )
    return replace(record, value=message.value, headers=message.headers)


def with_results(evidence: Evidence, **by_index: Record) -> Evidence:
    """The run with results exchanged; names are `at_<index>`."""
    results = list(evidence.results)
    for name, record in by_index.items():
        results[int(name.removeprefix("at_"))] = record
    return replace(evidence, results=results)


def drop_an_answer(run: Evidence) -> Evidence:
    """One result is gone, also for the live reader."""
    dropped = run.results[2]
    seen = set(run.seen_live or ()) - {(dropped.partition, dropped.offset)}
    return replace(run, results=[*run.results[:2], *run.results[3:]], seen_live=seen)


def duplicate_an_answer(run: Evidence) -> Evidence:
    """One result once more, at the end of its partition."""
    again = replace(run.results[2], offset=100)
    seen = {*(run.seen_live or ()), (again.partition, 100)}
    return replace(run, results=[*run.results, again], seen_live=seen)


def swap_labels(run: Evidence) -> Evidence:
    """Two rows of a batch, permuted after compute: each has the other's labels."""
    one, other = run.results[0], run.results[1]
    return with_results(
        run,
        at_0=altered(one, labels=("text 1",)),
        at_1=altered(other, labels=("text 0",)),
    )


def swap_whole_answers(run: Evidence) -> Evidence:
    """Two answers under each other's origin, each with its own text's digest."""
    one, other = run.results[0], run.results[1]
    origins = [decode_answer(r.value, r.headers).origin for r in (one, other)]
    return with_results(
        run, at_0=altered(one, origin=origins[1]), at_1=altered(other, origin=origins[0])
    )


def alter_a_label(run: Evidence) -> Evidence:
    """One answer is not the oracle's."""
    return with_results(run, at_0=altered(run.results[0], labels=("something else",)))


def alter_a_digest(run: Evidence) -> Evidence:
    """One answer says that it is to another text."""
    return with_results(run, at_0=altered(run.results[0], input_digest=bytes(8)))


def alter_an_id(run: Evidence) -> Evidence:
    """One answer goes to another caller's id."""
    return with_results(run, at_0=altered(run.results[0], id="id-77"))


def alter_a_task(run: Evidence) -> Evidence:
    """One answer is of another task."""
    return with_results(run, at_0=altered(run.results[0], task="hwu64"))


def alter_a_key(run: Evidence) -> Evidence:
    """One answer has another key."""
    return with_results(run, at_0=replace(run.results[0], key=b"id-77"))


def alter_an_encoding(run: Evidence) -> Evidence:
    """One answer comes in JSON to a MessagePack query."""
    answer = decode_answer(run.results[0].value, run.results[0].headers)
    reply = ReplyAddress(run.results[0].key, encoding="json")
    record = answer_record(answer, reply, run.results[0].partition, run.results[0].offset)
    return with_results(run, at_0=record)


def garble_an_answer(run: Evidence) -> Evidence:
    """One answer cannot be decoded, so its query has none."""
    return with_results(run, at_0=replace(run.results[0], value=b"\xc1"))


def invent_an_answer(run: Evidence) -> Evidence:
    """An answer to an offset that no query has."""
    invented = altered(run.results[0], origin=Origin(QUERIES, "", 0, 99))
    invented = replace(invented, offset=100)
    seen = {*(run.seen_live or ()), (invented.partition, 100)}
    return replace(run, results=[*run.results, invented], seen_live=seen)


def lose_an_acknowledged_write(run: Evidence) -> Evidence:
    """The broker acknowledged an offset at which nothing is."""
    lost = Publication("id-99", "banking77", bytes(8), "ok", 1, 99)
    return replace(run, publications=[*run.publications, lost])


def exchange_acknowledged_writes(run: Evidence) -> Evidence:
    """Two acknowledgements name each other's offset."""
    one, other = run.publications[0], run.publications[1]
    exchanged = [
        replace(one, partition=other.partition, offset=other.offset),
        replace(other, partition=one.partition, offset=one.offset),
    ]
    return replace(run, publications=[*exchanged, *run.publications[2:]])


def change_a_stored_text(run: Evidence) -> Evidence:
    """What the ledger sent is not what the log holds."""
    changed = replace(run.publications[0], input_digest=bytes(8))
    return replace(run, publications=[changed, *run.publications[1:]])


def answer_rubbish_with_a_result(run: Evidence) -> Evidence:
    """Bytes that are no query got a label; their dead letter is then one too many."""
    record = run.results[BAD]
    error = decode_answer(record.value, record.headers)
    result = Result(
        error.id,
        error.task,
        1,
        error.origin,
        level=0,
        confidence=1.0,
        labels=("x",),
        scores=(1.0,),
        input_digest=bytes(8),
    )
    reply = ReplyAddress(record.key)
    return with_results(run, at_4=answer_record(result, reply, record.partition, record.offset))


def forget_a_dead_letter(run: Evidence) -> Evidence:
    """Rejected, and its bytes are nowhere."""
    return replace(run, dead_letters=[])


def repeat_a_dead_letter(run: Evidence) -> Evidence:
    """Rejected once, kept twice."""
    return replace(run, dead_letters=[*run.dead_letters, replace(run.dead_letters[0], offset=1)])


def alter_a_dead_letter(run: Evidence) -> Evidence:
    """The bytes kept are not the bytes sent."""
    return replace(run, dead_letters=[replace(run.dead_letters[0], value=b"other")])


def cut_the_headers_of_a_dead_letter(run: Evidence) -> Evidence:
    """The headers sent are not kept."""
    letter = run.dead_letters[0]
    return replace(run, dead_letters=[replace(letter, headers=letter.headers[1:])])


def misname_the_reason_of_a_dead_letter(run: Evidence) -> Evidence:
    """Answer and dead letter give different reasons."""
    letter = run.dead_letters[0]
    headers = (*letter.headers, ("petstream-error-code", b"TOO_DEEP"))
    return replace(run, dead_letters=[replace(letter, headers=headers)])


def keep_an_answered_query_as_dead(run: Evidence) -> Evidence:
    """A query was answered and set aside all the same."""
    letter = dead_letter(run.queries[0], Reason.TRUNCATED, "cut", "decode", 1, "dlq")
    return replace(run, dead_letters=[*run.dead_letters, stored(letter, 0, 1)])


def show_an_aborted_answer(run: Evidence) -> Evidence:
    """A reader saw an answer that is not there in the end."""
    return replace(run, seen_live={*(run.seen_live or ()), (0, 50)})


def hide_an_answer_from_the_live_reader(run: Evidence) -> Evidence:
    """A reader missed an answer that is there."""
    missed = run.results[0]
    return replace(run, seen_live=set(run.seen_live or ()) - {(missed.partition, missed.offset)})


def test_a_right_run_has_no_violation() -> None:
    """Also with a rejected query in it."""
    assert check(right_run(), oracle) == []


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (drop_an_answer, {Invariant.NO_LOSS: 1}),
        (duplicate_an_answer, {Invariant.NO_DUPLICATE: 1}),
        (swap_labels, {Invariant.RIGHT_ANSWER: 2}),
        (
            swap_whole_answers,
            {
                Invariant.RIGHT_DIGEST: 2,
                Invariant.RIGHT_ADDRESS: 2,
                Invariant.RIGHT_ANSWER: 2,
            },
        ),
        (alter_a_label, {Invariant.RIGHT_ANSWER: 1}),
        (alter_a_digest, {Invariant.RIGHT_DIGEST: 1}),
        (alter_an_id, {Invariant.RIGHT_ADDRESS: 1}),
        (alter_a_task, {Invariant.RIGHT_ADDRESS: 1}),
        (alter_a_key, {Invariant.RIGHT_ADDRESS: 1}),
        (alter_an_encoding, {Invariant.RIGHT_ADDRESS: 1}),
        (garble_an_answer, {Invariant.READABLE: 1, Invariant.NO_LOSS: 1}),
        (invent_an_answer, {Invariant.NO_INVENTION: 1}),
        (lose_an_acknowledged_write, {Invariant.NO_LOST_WRITE: 1}),
        (exchange_acknowledged_writes, {Invariant.NO_LOST_WRITE: 2}),
        (change_a_stored_text, {Invariant.NO_LOST_WRITE: 1}),
        (
            answer_rubbish_with_a_result,
            {Invariant.RIGHT_ANSWER: 2, Invariant.DEAD_LETTER: 1},
        ),
        (forget_a_dead_letter, {Invariant.DEAD_LETTER: 1}),
        (repeat_a_dead_letter, {Invariant.DEAD_LETTER: 1}),
        (alter_a_dead_letter, {Invariant.DEAD_LETTER: 1}),
        (cut_the_headers_of_a_dead_letter, {Invariant.DEAD_LETTER: 1}),
        (misname_the_reason_of_a_dead_letter, {Invariant.DEAD_LETTER: 1}),
        (keep_an_answered_query_as_dead, {Invariant.DEAD_LETTER: 1}),
        (show_an_aborted_answer, {Invariant.SEEN_LIVE: 1}),
        (hide_an_answer_from_the_live_reader, {Invariant.SEEN_LIVE: 1}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_break_is_named(break_it: Break, expected: dict[Invariant, int]) -> None:
    """The checker sees it, counts it, and blames nothing else."""
    violations = check(break_it(right_run()), oracle)

    counts: dict[Invariant, int] = {}
    for violation in violations:
        counts[violation.invariant] = counts.get(violation.invariant, 0) + 1
    assert counts == expected


def test_an_unknown_fate_is_no_violation_whichever_way_it_went() -> None:
    """A write that timed out may be in the log or not; one that is must be answered."""
    run = right_run()
    stored_after_all = replace(run.publications[0], outcome="info", partition=None, offset=None)
    never_stored = Publication("id-99", "banking77", bytes(8), "info")
    publications = [stored_after_all, never_stored, *run.publications[1:]]

    assert check(replace(run, publications=publications), oracle) == []


def test_every_invariant_is_broken_by_some_test() -> None:
    """An invariant without a negative control would be decoration."""
    marks = test_each_break_is_named.pytestmark  # type: ignore[attr-defined]
    broken = {invariant for case in marks[0].args[1] for invariant in case[1]}

    assert broken == set(Invariant)
