"""Hypothesis strategies: valid messages, and bytes that are almost one."""

import json
from dataclasses import replace
from typing import Any, TypeVar, get_args

import msgpack  # type: ignore[import-untyped]
from hypothesis import strategies as st

from messages.batch import Batch, BatchRow
from messages.digest import input_digest
from messages.errors import ErrorAnswer, Reason
from messages.escalation import Escalation, SmallLevelOutput
from messages.headers import ECHOED
from messages.origin import Origin
from messages.original_record import OriginalRecord
from messages.query import Query, QueryParameters
from messages.reply import ReplyAddress
from messages.result import Result
from messages.task_event import TaskEvent, TaskKind, TaskLevel, TaskReference, TaskRevision

_Row = TypeVar("_Row", BatchRow, Escalation)

ids = st.from_regex(r"[!-~]{1,64}", fullmatch=True)
task_names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
tags = st.one_of(
    task_names,
    st.builds("{}@{}".format, task_names, st.integers(1, 999_999_999)),
    st.builds("{}:{}".format, task_names, task_names),
)
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=300).filter(
    lambda text: not text.isspace()
)
finite = st.floats(allow_nan=False, allow_infinity=False)
epochs = st.integers(0, 4_102_444_800_000)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """`strategy`, or None."""
    return st.none() | strategy


parameters = st.builds(
    QueryParameters,
    accuracy_target=maybe(st.floats(0, 1, exclude_min=True)),
    latency_slo_ms=maybe(st.floats(0, 604_800_000, exclude_min=True)),
    level=maybe(st.integers(0, 7)),
    min_confidence=maybe(st.floats(0, 1)),
    top_k=maybe(st.integers(1, 1_024)),
    priority=maybe(st.integers(1, 9)),
)
queries = st.builds(
    Query,
    id=ids,
    task=tags,
    text=texts,
    text_pair=maybe(texts),
    parameters=parameters,
    ttl_ms=maybe(st.integers(1, 604_800_000)),
    expires_at_ms=maybe(epochs),
)
origins = st.builds(
    Origin,
    topic=st.from_regex(r"[A-Za-z0-9._-]{1,249}", fullmatch=True),
    topic_id=st.from_regex(r"([A-Za-z0-9_-]{22})?", fullmatch=True),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
)
references = st.builds(
    TaskReference,
    name=task_names,
    revision=st.integers(1, 999_999_999),
    digest=st.from_regex("sha256:[0-9a-f]{64}", fullmatch=True),
)
replies = st.builds(
    ReplyAddress,
    key=maybe(st.binary(max_size=64)),
    encoding=st.sampled_from(["msgpack", "json"]),
    envelope=st.sampled_from(["native", "bare", "cloudevents"]),
    headers=st.lists(
        st.tuples(st.sampled_from(sorted(ECHOED)), st.binary(max_size=40)), max_size=5
    ).map(tuple),
    topic=maybe(st.just("tenant.replies")),
)
timings = st.lists(
    st.tuples(st.sampled_from(["queue", "schedule", "compute", "publish"]), finite),
    max_size=4,
    unique_by=lambda pair: pair[0],
).map(tuple)
small_outputs = st.builds(
    SmallLevelOutput,
    level=st.just(0),
    scores=st.integers(1, 20).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n)),
    confidence=st.floats(0, 1),
    batch_id=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
)
digests = texts.map(input_digest)

originals = st.builds(
    OriginalRecord,
    value=st.binary(max_size=60),
    headers=st.lists(
        st.tuples(st.text(st.characters(codec="utf-8"), max_size=8), maybe(st.binary(max_size=8))),
        max_size=4,
    ).map(tuple),
)

escalations = st.builds(
    Escalation,
    origin=origins,
    query_id=ids,
    task=references,
    next_level=st.integers(1, 7),
    text=texts,
    text_pair=maybe(texts),
    kept_words=maybe(st.sets(st.integers(0, 500)).map(lambda words: tuple(sorted(words)))),
    parameters=parameters,
    reply=replies,
    original=originals,
    input_digest=digests,
    appended_ms=epochs,
    deadline_ms=maybe(epochs),
    timings_ms=timings,
    small_output=small_outputs,
    attempt=st.integers(1, 9),
)
rows = st.builds(
    BatchRow,
    origin=origins,
    query_id=ids,
    task_index=st.just(0),
    token_ids=st.integers(1, 20).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n)),
    text=texts,
    text_pair=maybe(texts),
    parameters=parameters,
    reply=replies,
    original=originals,
    input_digest=digests,
    appended_ms=epochs,
    deadline_ms=maybe(epochs),
    timings_ms=timings,
    small_output=maybe(small_outputs),
    attempt=st.integers(1, 9),
)


def around(limit: int) -> st.SearchStrategy[int]:
    """Lengths on both sides of a limit, and short ones."""
    return st.integers(0, 3) | st.integers(limit - 1, limit + 1)


def extreme(
    valid: st.SearchStrategy[_Row], **more: st.SearchStrategy[Any]
) -> st.SearchStrategy[_Row]:
    """`valid` rows or escalations of which one field is at the edge of its limit, or beyond it."""
    edges: dict[str, st.SearchStrategy[Any]] = {
        "text": around(32_768).map("\u00e4".__mul__),
        "text_pair": around(32_768).map("a".__mul__),
        "input_digest": around(8).map(bytes),
        "query_id": around(64).map("q".__mul__),
        "appended_ms": st.integers(),
        "attempt": around(1_000_000),
        "timings_ms": around(32).map(lambda num: (("queue", -1.0),) * num),
        "reply": st.builds(
            ReplyAddress,
            key=around(1_024).map(bytes),
            headers=around(64).map(lambda num: (("ce_id", b"x"),) * num),
        ),
        "original": st.builds(
            OriginalRecord,
            value=around(262_144).map(bytes),
            headers=around(32).map(lambda num: (("h", b"x"),) * num),
        ),
        "small_output": st.builds(
            SmallLevelOutput,
            level=around(7),
            scores=around(262_144).map(bytes),
            confidence=st.floats(),
            batch_id=around(128).map("b".__mul__),
        ),
        **more,
    }
    field = st.sampled_from(sorted(edges))
    changes = field.flatmap(lambda name: edges[name].map(lambda value: {name: value}))
    return st.builds(lambda message, change: replace(message, **change), valid, changes)


extreme_rows = extreme(rows, token_ids=around(4 * 8_192).map(bytes))
extreme_escalations = extreme(
    escalations, next_level=around(7), kept_words=around(32_768).map(lambda num: (0, num))
)
batches = st.builds(
    Batch,
    batch_id=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    level=st.integers(0, 7),
    backbone=st.sampled_from(["minilm-l3", "minilm-l6", "mpnet-base"]),
    policy=st.sampled_from(["fixed", "packed"]),
    created_ms=epochs,
    tasks=st.tuples(references),
    rows=st.lists(rows, min_size=1, max_size=6, unique_by=lambda row: row.origin).map(tuple),
)

scored_labels = st.lists(st.tuples(texts, st.floats(0, 1)), max_size=5)
tagged_words = st.lists(st.tuples(st.integers(0, 9), st.integers(10, 99), texts), max_size=5).map(
    tuple
)

vectors = st.lists(
    st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9
).map(tuple)


@st.composite
def results(draw: st.DrawFn) -> Result:
    """Results of every kind of task."""
    kind = draw(st.sampled_from(["labels", "value", "tags", "embedding"]))
    scored = draw(scored_labels) if kind == "labels" else []
    return Result(
        id=draw(ids),
        task=draw(task_names),
        task_revision=draw(st.integers(1, 999)),
        origin=draw(origins),
        level=draw(st.integers(0, 7)),
        confidence=draw(st.floats(0, 1)),
        labels=tuple(label for label, _ in scored),
        scores=tuple(score for _, score in scored),
        value=draw(finite) if kind == "value" else None,
        tags=draw(tagged_words) if kind == "tags" else None,
        embedding=draw(vectors) if kind == "embedding" else None,
        kept_tokens=draw(st.integers(0, 512)),
        timings_ms=draw(timings),
        input_digest=draw(digests),
        batch_id=draw(ids),
        attempt=draw(st.integers(1, 9)),
    )


errors = st.builds(
    ErrorAnswer,
    id=ids | st.just(""),
    task=tags | st.just(""),
    origin=origins,
    reason=st.sampled_from(sorted(Reason)),
    message=st.text(st.characters(codec="utf-8"), max_size=200),
    stage=st.sampled_from(["decode", "validate", "schedule", "compute"]),
    timings_ms=timings,
    input_digest=digests | st.just(b""),
    attempt=st.integers(1, 9),
)


@st.composite
def task_events(draw: st.DrawFn) -> TaskEvent:
    """States of a task with ascending revisions and levels, and aliases that exist."""
    name = draw(task_names)
    numbers = sorted(draw(st.sets(st.integers(1, 999), min_size=1, max_size=4)))
    levels = sorted(draw(st.sets(st.integers(0, 7), min_size=1, max_size=3)))
    revisions = tuple(
        TaskRevision(
            TaskReference(name, number, f"sha256:{number:064x}"),
            draw(st.sampled_from(sorted(get_args(TaskKind)))),
            draw(st.integers(1, 200)),
            draw(st.booleans()),
            tuple(TaskLevel(level, "minilm-l3", "lora", 128) for level in levels),
        )
        for number in numbers
    )
    aliases = draw(st.dictionaries(task_names, st.sampled_from(numbers), max_size=3))
    return TaskEvent(name, draw(st.booleans()), revisions, tuple(aliases.items()))


_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["1.0", "1.1", "2.0", "banking77", "msgpack", "native", "sha256:"])
)


def trees(
    field_names: list[str], more_scalars: st.SearchStrategy[object]
) -> st.SearchStrategy[object]:
    """Trees of any shape whose maps are fond of `field_names`."""
    keys = st.sampled_from(field_names) | st.text(max_size=5)
    return st.recursive(
        _scalars | more_scalars,
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(keys, inner, max_size=10),
        max_leaves=25,
    )


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """`valid` with up to four bytes changed, put in, or taken out, or cut short."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["set", "insert", "delete", "cut", "repeat"])):
            case "set" if data:
                data[position] = draw(st.integers(0, 255))
            case "insert":
                data[position:position] = draw(st.binary(min_size=1, max_size=4))
            case "delete":
                del data[position : position + draw(st.integers(1, 4))]
            case "cut":
                del data[position:]
            case "repeat":
                data += data[position:]
    return bytes(data)


def hostile_bytes(valid: list[bytes], field_names: list[str]) -> st.SearchStrategy[bytes]:
    """Noise, damaged messages, and well-formed values of a wrong shape."""
    lone_surrogates = st.text(st.characters(categories=["Cs", "Ll"]), max_size=5)
    return st.one_of(
        st.binary(max_size=200),
        st.sampled_from(valid).flatmap(damaged),
        trees(field_names, st.binary(max_size=20)).map(msgpack.packb),
        trees(field_names, lone_surrogates).map(lambda tree: json.dumps(tree).encode()),
    )
