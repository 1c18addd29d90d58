"""The wire: what encoding, decoding and validating cost on one core.

    python benchmarks/bench_messages.py [--json] [--repeats 1000]

One thread, and its own CPU time: what other processes take of the core does not count. What they
take of a shared cache or of the core's other hardware thread does, hence the median over many short
runs, the fastest beside it, and the machine's load in the document. The garbage collector stays on.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from messages.answer_codec import decode_answer, encode_answer
from messages.batch import Batch, BatchRow
from messages.batch_codec import decode_batch, encode_batch
from messages.escalation import Escalation, SmallLevelOutput
from messages.escalation_codec import decode_escalation, encode_escalation
from messages.origin import Origin
from messages.original_record import OriginalRecord
from messages.query import Query
from messages.query_codec import decode_query, encode_query
from messages.reply import CallerEnvelope, Encoding
from messages.result import Result
from messages.task_event import TaskReference
from petstream.benchmarks.document import Goal, make_document

TEXT = (
    "please tell me how i can transfer some money from my savings account "
    "to the new card that arrived yesterday"
)
QUERY = Query(id="0198f2aa-7c1e-7a4b-8f3e-0123456789ab", task="banking77", text=TEXT)
KEY = b"0198f2aa-7c1e-7a4b-8f3e-0123456789ab"
BATCH_ROWS = 2_048
NUM_TASKS = 64
TOKENS_PER_ROW = 24
GOAL_US = 15.0
LOOPS = 50


def time_us(run: Callable[[], object], repeats: int, per_call: int, loops: int) -> dict[str, float]:
    """Microseconds of one of the `per_call` messages that `run` handles, over `repeats` runs."""
    run()
    times_us = []
    for _ in range(repeats):
        started = time.thread_time()
        for _ in range(loops):
            run()
        times_us.append((time.thread_time() - started) * 1e6 / loops / per_call)
    return {"median_us": statistics.median(times_us), "fastest_us": min(times_us)}


def query_figures(repeats: int) -> list[dict[str, Any]]:
    """A query of 20 words in every form: the client's side, the scheduler's, and both."""
    forms: list[tuple[Encoding, CallerEnvelope]] = [
        ("msgpack", "native"),
        ("json", "native"),
        ("json", "bare"),
        ("msgpack", "cloudevents"),
        ("json", "cloudevents"),
    ]
    figures = []
    for encoding, envelope in forms:
        value, headers = encode_query(QUERY, encoding=encoding, envelope=envelope)

        def encode(encoding: Encoding = encoding, envelope: CallerEnvelope = envelope) -> object:
            return encode_query(QUERY, encoding=encoding, envelope=envelope)

        def decode(value: bytes = value, headers: Any = headers) -> object:  # noqa: ANN401
            return decode_query(value, KEY, headers, partition=3, offset=17)

        def both(encode: Any = encode, decode: Any = decode) -> object:  # noqa: ANN401
            encode()
            return decode()

        for part, run in (("encode", encode), ("decode", decode), ("encode+decode", both)):
            figures.append(
                {"message": "query", "encoding": encoding, "envelope": envelope, "part": part}
                | {"bytes": len(value)}
                | time_us(run, repeats, 1, LOOPS)
            )
    return figures


def make_batch() -> Batch:
    """A batch as the packed policy makes it: many tasks, rows of one task together."""
    value, key, headers = _record()
    incoming = decode_query(value, key, headers, partition=3, offset=17)
    rows = tuple(
        BatchRow(
            origin=Origin("petstream.queries", "AbCdEfGhIjKlMnOpQrStUv", n % 12, n),
            query_id=f"0198f2aa-7c1e-7a4b-8f3e-{n:012x}",
            task_index=n * NUM_TASKS // BATCH_ROWS,
            token_ids=n.to_bytes(4, "little") * TOKENS_PER_ROW,
            text=TEXT,
            text_pair=None,
            parameters=QUERY.parameters,
            reply=incoming.reply,
            original=OriginalRecord(value, headers),
            input_digest=incoming.input_digest,
            appended_ms=1_795_430_395_000 + n,
            timings_ms=(("queue", 1.5), ("schedule", 0.25)),
        )
        for n in range(BATCH_ROWS)
    )
    tasks = tuple(TaskReference(f"task-{n}", 1, f"sha256:{n:064x}") for n in range(NUM_TASKS))
    return Batch("b" * 32, 0, "minilm-l3", "packed", 1_795_430_395_000, tasks, rows)


def _record() -> tuple[bytes, bytes, tuple[tuple[str, bytes], ...]]:
    value, headers = encode_query(QUERY)
    return value, KEY, headers


def inner_figures(repeats: int) -> list[dict[str, Any]]:
    """Batches by the row; escalations and answers by the message."""
    batch = make_batch()
    row = batch.rows[0]
    batch_value = encode_batch(batch).value
    small = SmallLevelOutput(0, bytes(4 * 77), 0.5, "b" * 32)
    escalation = Escalation(
        origin=row.origin,
        query_id=row.query_id,
        task=batch.tasks[0],
        next_level=1,
        text=TEXT,
        text_pair=None,
        kept_words=tuple(range(10)),
        parameters=row.parameters,
        reply=row.reply,
        original=row.original,
        input_digest=row.input_digest,
        appended_ms=row.appended_ms,
        deadline_ms=None,
        timings_ms=row.timings_ms,
        small_output=small,
    )
    escalation_value = encode_escalation(escalation).value
    result = Result(
        id=row.query_id,
        task="banking77",
        task_revision=1,
        origin=row.origin,
        level=0,
        confidence=0.9,
        labels=("card_arrival", "card_linking", "card_about_to_expire"),
        scores=(0.9, 0.06, 0.04),
        kept_tokens=TOKENS_PER_ROW,
        timings_ms=row.timings_ms,
        input_digest=row.input_digest,
        batch_id="b" * 32,
    )
    answer = encode_answer(result, row.reply)
    few = max(5, repeats // 50)
    parts: list[tuple[str, str, Callable[[], object], int, int, int]] = [
        ("batch row", "encode", lambda: encode_batch(batch), len(batch_value), BATCH_ROWS, few),
        (
            "batch row",
            "decode",
            lambda: decode_batch(batch_value),
            len(batch_value),
            BATCH_ROWS,
            few,
        ),
        (
            "escalation",
            "encode",
            lambda: encode_escalation(escalation),
            len(escalation_value),
            1,
            0,
        ),
        (
            "escalation",
            "decode",
            lambda: decode_escalation(escalation_value),
            len(escalation_value),
            1,
            0,
        ),
        ("result", "encode", lambda: encode_answer(result, row.reply), len(answer.value), 1, 0),
        ("result", "decode", lambda: decode_answer(*answer), len(answer.value), 1, 0),
    ]
    return [
        {"message": message, "encoding": "msgpack", "part": part, "bytes": num_bytes / per_call}
        | time_us(run, runs or repeats, per_call, 1 if runs else LOOPS)
        for message, part, run, num_bytes, per_call, runs in parts
    ]


def goals_of(rows: Sequence[dict[str, Any]]) -> list[Goal]:
    """The figure that is promised, against what was measured."""
    measured = next(
        row["median_us"]
        for row in rows
        if row["message"] == "query"
        and (row["encoding"], row["envelope"], row["part"])
        == ("msgpack", "native", "encode+decode")
    )
    unit = "us per query of 20 words, one core"
    return [Goal("query-encode-decode-validate", GOAL_US, round(measured, 2), unit, "at most")]


def main() -> None:
    """Measure, then print a table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=int, default=1_000, help="runs per figure")
    arguments = parser.parse_args()

    rows = query_figures(arguments.repeats) + inner_figures(arguments.repeats)
    rounded = [{k: round(v, 2) if isinstance(v, float) else v for k, v in r.items()} for r in rows]
    result = make_document(rounded, goals_of(rows))

    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{result['device']}, one used, Python {result['versions']['python']}")
    for row in result["rows"]:
        name = " ".join(
            row[key] for key in ("message", "encoding", "envelope", "part") if key in row
        )
        print(
            f"{name:44}{row['median_us']:8.2f} us{row['fastest_us']:8.2f} us{row['bytes']:8.0f} B"
        )
    for goal in result["goals"]:
        verdict = "met" if goal["met"] else "MISSED"
        print(f"{goal['id']}: {goal['value']} {goal['unit']} {goal['target']}: {verdict}")


if __name__ == "__main__":
    main()
