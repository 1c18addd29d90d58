"""The stage: every record in leaves as exactly one row or one error, whatever it holds."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messages.digest import input_digest
from messages.errors import Reason
from messages.escalation import Escalation, SmallLevelOutput
from messages.escalation_codec import encode_escalation
from messages.origin import Origin
from messages.original_record import OriginalRecord
from messages.query import Query, QueryParameters
from messages.reply import ReplyAddress
from messages.task_event import TaskReference
from scheduler.planning import PlanLimits
from scheduler.policies.catalogue import POLICIES
from tests.scheduler.stages import (
    CLS,
    NOW_MS,
    SEP,
    TOPICS,
    make_stage,
    published,
    query_record,
    revision,
    token,
    token_ids,
)
from transport.errors import VersionMismatch
from transport.records import Headers, Record

ORIGINAL = OriginalRecord(b"as it came", (("task", b"banking77"),))
SMALL = SmallLevelOutput(level=0, scores=b"\x00\x00\x80?" * 3, confidence=0.4, batch_id="b1")


def _escalation(
    offset: int = 0,
    *,
    task: TaskReference | None = None,
    text: str = "hello world",
    kept_words: tuple[int, ...] | None = None,
    deadline_ms: int | None = None,
    next_level: int = 1,
) -> Escalation:
    return Escalation(
        origin=Origin(TOPICS.queries, "AAAAAAAAAAAAAAAAAAAAAA", 3, 1000 + offset),
        query_id=f"e{offset}",
        task=task or revision("banking77", 1).reference,
        next_level=next_level,
        text=text,
        text_pair=None,
        kept_words=kept_words,
        parameters=QueryParameters(top_k=2),
        reply=ReplyAddress(b"caller", "json", headers=(("traceparent", b"00-a-b-01"),)),
        original=ORIGINAL,
        input_digest=input_digest(text),
        appended_ms=NOW_MS - 50,
        deadline_ms=deadline_ms,
        timings_ms=(("queue_l0", 3.0), ("compute_l0", 4.0)),
        small_output=SMALL,
        attempt=2,
    )


def _escalation_record(escalation: Escalation, offset: int = 0) -> Record:
    message = encode_escalation(escalation)
    return Record(TOPICS.escalations, 1, offset, None, message.value, message.headers, NOW_MS - 7)


def _raw(value: bytes | None, headers: Headers = (), key: bytes | None = b"k") -> Record:
    return Record(TOPICS.queries, 2, 77, key, value, headers, NOW_MS - 5)


def test_a_window_of_queries_becomes_batches_of_the_first_level(models_dir: Path) -> None:
    """A window of queries becomes batches of the first level."""
    queries = [
        Query(f"q{n}", ("banking77", "snips", "sms_spam")[n % 3], "hello world", None)
        for n in range(30)
    ]

    out = published(
        make_stage(models_dir).process([query_record(q, n) for n, q in enumerate(queries)])
    )

    (batch,) = out.batches[0]
    assert out.errors == []
    assert out.dead_letters == []
    assert sorted(row.query_id for row in batch.rows) == sorted(q.id for q in queries)
    assert (batch.level, batch.backbone, batch.policy) == (0, "minilm-l3", "packed")
    assert [task.name for task in batch.tasks] == ["banking77", "snips", "sms_spam"]
    assert [batch.tasks[row.task_index].name for row in batch.rows] == (
        ["banking77"] * 10 + ["snips"] * 10 + ["sms_spam"] * 10
    )
    assert batch.tasks[0].revision == 2


def test_a_row_carries_all_that_its_answer_needs(models_dir: Path) -> None:
    """A row carries all that its answer needs."""
    parameters = QueryParameters(min_confidence=0.5, top_k=3, priority=1)
    query = Query("q", "banking77@1", "Hello, WORLD", None, parameters, ttl_ms=9000)

    (row,) = published(make_stage(models_dir).process([query_record(query, 41)])).rows

    assert row.origin == Origin(TOPICS.queries, "AAAAAAAAAAAAAAAAAAAAAA", 0, 41)
    assert row.parameters == parameters
    assert (row.text, row.text_pair) == ("Hello, WORLD", None)
    assert row.reply.key == b"q"
    assert row.input_digest == input_digest("Hello, WORLD")
    assert row.appended_ms == NOW_MS - 5
    assert row.deadline_ms == NOW_MS - 5 + 9000
    assert row.small_output is None
    assert dict(row.timings_ms) == {"queue_l0": 5.0, "schedule_l0": 0.0}
    assert token_ids(row) == [CLS, token("hello"), token(","), token("world"), SEP]


def test_a_pair_is_tokenised_as_a_pair(models_dir: Path) -> None:
    """A pair is tokenised as a pair."""
    query = Query("q", "stsb", "alpha", "beta gamma")

    (row,) = published(make_stage(models_dir).process([query_record(query)])).rows

    assert (row.text, row.text_pair) == ("alpha", "beta gamma")
    assert token_ids(row) == [CLS, token("alpha"), SEP, token("beta"), token("gamma"), SEP]


def test_a_forced_level_is_gone_to_directly(models_dir: Path) -> None:
    """A forced level is gone to directly."""
    query = Query("q", "banking77", "alpha", parameters=QueryParameters(level=1))

    out = published(make_stage(models_dir).process([query_record(query)]))

    assert list(out.batches) == [1]
    assert out.batches[1][0].backbone == "minilm-l6"


def test_a_task_starts_at_its_first_level_that_has_a_pool(models_dir: Path) -> None:
    """A task starts at its first level that has a pool."""
    query = Query("q", "banking77", "alpha")

    out = published(make_stage(models_dir, levels=(1,)).process([query_record(query)]))

    assert list(out.batches) == [1]


def test_an_escalation_keeps_origin_deadline_and_the_small_levels_output(
    models_dir: Path,
) -> None:
    """An escalation keeps origin deadline and the small levels output."""
    escalation = _escalation(deadline_ms=NOW_MS + 10_000)

    out = published(make_stage(models_dir).process([_escalation_record(escalation)]))

    ((batch,),) = out.batches.values()
    (row,) = batch.rows
    assert (batch.level, batch.backbone) == (1, "minilm-l6")
    assert batch.tasks == (escalation.task,)
    assert (row.origin, row.query_id, row.attempt) == (escalation.origin, "e0", 2)
    assert (row.deadline_ms, row.appended_ms) == (NOW_MS + 10_000, NOW_MS - 50)
    assert (row.small_output, row.reply) == (SMALL, escalation.reply)
    assert row.parameters == escalation.parameters
    assert dict(row.timings_ms) == {
        "queue_l0": 3.0,
        "compute_l0": 4.0,
        "queue_l1": 7.0,
        "schedule_l1": 0.0,
    }


def test_only_the_words_that_pruning_kept_are_tokenised(models_dir: Path) -> None:
    """Only the words that pruning kept are tokenised."""
    escalation = _escalation(text="alpha beta  gamma bank", kept_words=(1, 3))

    (row,) = published(make_stage(models_dir).process([_escalation_record(escalation)])).rows

    assert token_ids(row) == [CLS, token("beta"), token("bank"), SEP]
    assert row.text == "alpha beta  gamma bank"


def test_both_inputs_share_a_window_and_never_a_batch(models_dir: Path) -> None:
    """Both inputs share a window and never a batch."""
    records = [query_record(Query(f"q{n}", "snips", "alpha"), n) for n in range(5)]
    records += [_escalation_record(_escalation(n), n) for n in range(4)]

    out = published(make_stage(models_dir).process(records))

    assert {level: sum(len(b.rows) for b in batches) for level, batches in out.batches.items()} == {
        0: 5,
        1: 4,
    }


def test_control_tokens_written_by_a_caller_are_words(models_dir: Path) -> None:
    """Control tokens written by a caller are words."""
    query = Query("q", "snips", "alpha [SEP] [CLS] [MASK]")

    (row,) = published(make_stage(models_dir).process([query_record(query)])).rows

    ids = token_ids(row)
    assert ids[0] == CLS
    assert ids[-1] == SEP
    assert not {CLS, SEP, token("[MASK]")} & set(ids[1:-1])


def test_a_text_over_the_tasks_tokens_is_cut_and_still_ends_in_the_separator(
    models_dir: Path,
) -> None:
    """A text over the tasks tokens is cut and still ends in the separator."""
    query = Query("q", "snips", "alpha " * 40)

    (row,) = published(make_stage(models_dir).process([query_record(query)])).rows

    assert token_ids(row) == [CLS, *[token("alpha")] * 14, SEP]


def _invalid(**fields: object) -> bytes:
    return json.dumps({"v": "1.0", "id": "q7", "task": "snips", "text": "a", **fields}).encode()


JSON: Headers = (("content-type", b"application/json"),)

BAD_QUERIES: dict[str, tuple[Record, Reason, str]] = {
    "no value": (_raw(None), Reason.EMPTY_PAYLOAD, "decode"),
    "no bytes": (_raw(b""), Reason.EMPTY_PAYLOAD, "decode"),
    "truncated": (_raw(b"\x85\xa2id"), Reason.TRUNCATED, "decode"),
    "unknown task": (_raw(_invalid(task="nobody"), JSON), Reason.TASK_UNKNOWN, "validate"),
    "unknown revision": (_raw(_invalid(task="snips@9"), JSON), Reason.TASK_UNKNOWN, "validate"),
    "unknown alias": (_raw(_invalid(task="snips:live"), JSON), Reason.TASK_UNKNOWN, "validate"),
    "path as task": (_raw(_invalid(task="../../etc/passwd"), JSON), Reason.BAD_FORMAT, "decode"),
    "attribute as task": (_raw(_invalid(task="__class__"), JSON), Reason.BAD_FORMAT, "decode"),
    "retired task": (_raw(_invalid(task="old-task"), JSON), Reason.TASK_RETIRED, "validate"),
    "text over the limit": (_raw(_invalid(text="a" * 501), JSON), Reason.TEXT_TOO_LONG, "validate"),
    "pair over the limit": (
        _raw(_invalid(task="stsb", text=["a" * 251, "b" * 250]), JSON),
        Reason.TEXT_TOO_LONG,
        "validate",
    ),
    "combining characters": (
        _raw(_invalid(text="a" + "\u0301" * 9000), JSON),
        Reason.TEXT_TOO_LONG,
        "validate",
    ),
    "empty text": (_raw(_invalid(text=""), JSON), Reason.EMPTY_TEXT, "decode"),
    "blank text": (_raw(_invalid(text=" \n\t "), JSON), Reason.EMPTY_TEXT, "decode"),
    "text without words": (
        _raw(_invalid(text="\u200b\ufeff"), JSON),
        Reason.EMPTY_TEXT,
        "tokenise",
    ),
    "pair for a task of one text": (
        _raw(_invalid(text=["a", "b"]), JSON),
        Reason.TEXT_PAIR_UNEXPECTED,
        "validate",
    ),
    "one text for a task of pairs": (
        _raw(_invalid(task="stsb"), JSON),
        Reason.MISSING_FIELD,
        "validate",
    ),
    "level the task has not": (
        _raw(_invalid(task="small-only", parameters={"level": 1}), JSON),
        Reason.LEVEL_UNAVAILABLE,
        "validate",
    ),
    "level without a pool": (
        _raw(_invalid(parameters={"level": 5}), JSON),
        Reason.LEVEL_UNAVAILABLE,
        "validate",
    ),
    "time to live over": (_raw(_invalid(ttl_ms=5), JSON), Reason.DEADLINE_PAST, "validate"),
    "expired by its own clock": (
        _raw(_invalid(expires_at_ms=NOW_MS - 1), JSON),
        Reason.DEADLINE_PAST,
        "validate",
    ),
    "time to live of 0": (_raw(_invalid(ttl_ms=0), JSON), Reason.OUT_OF_RANGE, "decode"),
    "priority of 0": (
        _raw(_invalid(parameters={"priority": 0}), JSON),
        Reason.OUT_OF_RANGE,
        "decode",
    ),
    "priority of 10": (
        _raw(_invalid(parameters={"priority": 10}), JSON),
        Reason.OUT_OF_RANGE,
        "decode",
    ),
    "confidence over 1": (
        _raw(_invalid(parameters={"min_confidence": 1.5}), JSON),
        Reason.OUT_OF_RANGE,
        "decode",
    ),
    "unknown parameter": (
        _raw(_invalid(parameters={"max_new_tokens": 10}), JSON),
        Reason.UNKNOWN_FIELD,
        "decode",
    ),
    "tenant in the value": (_raw(_invalid(tenant="other"), JSON), Reason.UNKNOWN_FIELD, "decode"),
    "lone surrogate": (_raw(_invalid(text="a\ud800b"), JSON), Reason.INVALID_UTF8, "decode"),
    "backbone without tokenizer": (
        _raw(_invalid(task="exotic"), JSON),
        Reason.TASK_UNAVAILABLE,
        "tokenise",
    ),
    "backbone outside the folder": (
        _raw(_invalid(task="outside"), JSON),
        Reason.TASK_UNAVAILABLE,
        "tokenise",
    ),
    "corrupt record": (
        Record(TOPICS.queries, 2, 77, None, None, (), NOW_MS, corrupt="bad CRC"),
        Reason.CORRUPT_RECORD,
        "decode",
    ),
    "header name that is no text": (
        Record(
            TOPICS.queries,
            2,
            77,
            b"k",
            json.dumps({"task": "banking77", "text": "hi"}).encode(),
            (),
            NOW_MS,
            bad_header="the name of a header is not UTF-8",
        ),
        Reason.BAD_HEADER,
        "decode",
    ),
}


@pytest.mark.parametrize("name", BAD_QUERIES)
def test_a_bad_query_is_one_error_and_its_raw_bytes(models_dir: Path, name: str) -> None:
    """And its neighbours in the window do not notice."""
    record, reason, stage = BAD_QUERIES[name]
    neighbours = [query_record(Query(f"n{n}", "banking77", "hello"), n) for n in range(2)]

    out = published(make_stage(models_dir).process([neighbours[0], record, neighbours[1]]))

    assert sorted(row.query_id for row in out.rows) == ["n0", "n1"]
    (error,) = out.errors
    assert (error.reason, error.stage) == (reason, stage)
    assert (error.origin.topic, error.origin.partition, error.origin.offset) == (
        TOPICS.queries,
        2,
        77,
    )
    assert 0 < len(error.message) <= 200
    (answer,) = out.error_records
    assert (answer.topic, answer.key) == (TOPICS.results, record.key)
    (dead,) = out.dead_letters
    assert (dead.key, dead.value) == (record.key, record.value)
    assert dead.headers[: len(record.headers)] == record.headers
    assert dict(dead.headers)["petstream-error-code"] == reason.value.encode()
    assert dict(dead.headers)["petstream-stage"] == stage.encode()


def test_an_error_names_the_query_as_far_as_it_can_be_read(models_dir: Path) -> None:
    """An error names the query as far as it can be read."""
    readable = _raw(_invalid(task="nobody", text="secret words"), JSON)
    not_readable = Record(TOPICS.queries, 4, 9, None, b"\xc1", (), NOW_MS)

    out = published(make_stage(models_dir).process([readable, not_readable]))

    by_offset = {error.origin.offset: error for error in out.errors}
    assert (by_offset[77].id, by_offset[77].task) == ("q7", "nobody")
    assert by_offset[77].input_digest == input_digest("secret words")
    assert "secret" not in by_offset[77].message
    assert (by_offset[9].id, by_offset[9].task) == ("4-9", "")


def test_a_record_that_cannot_be_read_is_called_by_its_key(models_dir: Path) -> None:
    """A record that cannot be read is called by its key."""
    headers: Headers = (("content-type", b"application/msgpack"),)
    record = Record(TOPICS.queries, 4, 9, b"my-id", b"\xc1", headers, NOW_MS)

    out = published(make_stage(models_dir).process([record]))

    assert out.errors[0].id == "my-id"
    assert out.error_records[0].key == b"my-id"


BAD_ESCALATIONS: dict[str, tuple[Escalation, Reason]] = {
    "deadline past": (_escalation(deadline_ms=NOW_MS - 1), Reason.DEADLINE_PAST),
    "revision gone": (
        _escalation(task=TaskReference("banking77", 8, "sha256:" + "0" * 64)),
        Reason.TASK_UNKNOWN,
    ),
    "level without a pool": (_escalation(next_level=3), Reason.LEVEL_UNAVAILABLE),
    "level the task has not": (
        _escalation(task=revision("small-only").reference),
        Reason.LEVEL_UNAVAILABLE,
    ),
}


@pytest.mark.parametrize("name", BAD_ESCALATIONS)
def test_a_bad_escalation_is_answered_to_the_querys_own_origin(models_dir: Path, name: str) -> None:
    """A bad escalation is answered to the querys own origin."""
    escalation, reason = BAD_ESCALATIONS[name]
    record = _escalation_record(escalation)

    out = published(make_stage(models_dir).process([record]))

    (error,) = out.errors
    assert (error.reason, error.origin, error.id) == (reason, escalation.origin, "e0")
    assert out.error_records[0].key == b"caller"
    assert ("traceparent", b"00-a-b-01") in out.error_records[0].headers
    (dead,) = out.dead_letters
    assert (dead.key, dead.value, dead.headers[:1]) == (
        b"caller",
        ORIGINAL.value,
        ORIGINAL.headers,
    )
    assert dict(dead.headers)["__streams.errors.offset"] == b"1000"
    assert out.rows == []


def test_an_escalation_of_a_task_retired_meanwhile_is_still_scheduled(models_dir: Path) -> None:
    """An escalation of a task retired meanwhile is still scheduled."""
    escalation = _escalation(task=revision("old-task").reference)

    out = published(make_stage(models_dir).process([_escalation_record(escalation)]))

    assert [row.query_id for row in out.rows] == ["e0"]


@pytest.mark.parametrize("version", ["2.0", "0.9"])
def test_an_escalation_of_another_version_stops_the_scheduler(
    models_dir: Path, version: str
) -> None:
    """Set aside, its query would never be answered: a newer scheduler can read it."""
    value = msgpack.packb({"v": version, "anything": "else"})
    record = Record(TOPICS.escalations, 3, 5, None, value, (), NOW_MS)

    with pytest.raises(VersionMismatch, match=rf"escalations/3/5 was written by version {version}"):
        make_stage(models_dir).process([record])


@pytest.mark.parametrize("value", [None, b"", b"\xc1", b"\x80", b"\x81\xa1v\xa1x"])
def test_an_escalation_that_names_no_query_goes_to_the_dead_letters(
    models_dir: Path, value: bytes | None
) -> None:
    """Nobody can be answered: the bytes do not say whose query it was."""
    record = Record(TOPICS.escalations, 0, 5, None, value, (), NOW_MS)

    out = published(make_stage(models_dir).process([record]))

    assert out.errors == []
    assert [dead.value for dead in out.dead_letters] == [value]


@pytest.mark.parametrize("policy", POLICIES)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_comes_in_each_record_leaves_once(
    models_dir: Path, policy: str, data: st.DataObject
) -> None:
    """Random bytes and headers between good queries of random tasks and lengths."""
    tasks = st.sampled_from(["banking77", "snips", "sms_spam@1", "nobody", "old-task", "stsb"])
    text = st.text(max_size=60)
    good = st.builds(
        lambda task, text: json.dumps({"v": "1.0", "task": task, "text": text}).encode(),
        tasks,
        text,
    )
    headers = st.lists(
        st.tuples(st.sampled_from(["content-type", "task", "ce_id", "x"]), st.binary(max_size=20)),
        max_size=3,
    ).map(tuple)
    inputs = data.draw(
        st.lists(
            st.tuples(good | st.binary(max_size=40) | st.none(), headers | st.just(JSON)),
            max_size=25,
        )
    )
    records = [
        Record(TOPICS.queries, n % 3, n, b"key", value, tuple(record_headers), NOW_MS)
        for n, (value, record_headers) in enumerate(inputs)
    ]
    limits = PlanLimits(max_batch_rows=7, max_batch_tokens=64, max_mini_batch_rows=4)

    out = published(make_stage(models_dir, policy=policy, limits=limits).process(records))

    assert out.origins() == Counter((r.topic, r.partition, r.offset) for r in records)
    assert len(out.dead_letters) == len(out.errors)
    for batches in out.batches.values():
        for batch in batches:
            assert len(batch.rows) <= 7


def test_a_batch_over_the_topics_limit_is_split(models_dir: Path) -> None:
    """A batch over the topics limit is split."""
    records = [
        query_record(Query(f"q{n}", ("snips", "sms_spam")[n % 2], "hello " * 60), n)
        for n in range(64)
    ]
    stage = make_stage(models_dir, max_batch_bytes=6000)

    outgoing = stage.process(records)

    out = published(outgoing)
    assert all(len(record.value or b"") <= 5400 for record in outgoing)
    assert len(outgoing) >= 5
    assert sorted(row.query_id for row in out.rows) == sorted(f"q{n}" for n in range(64))
    assert len({batch.batch_id for batch in out.batches[0]}) == len(outgoing)


def test_a_tenth_of_the_topics_limit_stays_free_for_the_envelope(models_dir: Path) -> None:
    """A value that would just fit is split too: headers and framing count against the limit."""
    records = [query_record(Query(f"q{n}", "snips", "hello"), n) for n in range(16)]
    (whole,) = make_stage(models_dir).process(records)
    size = len(whole.value or b"")

    just_fitting = make_stage(models_dir, max_batch_bytes=size + 1).process(records)
    with_room = make_stage(models_dir, max_batch_bytes=size * 10 // 9 + 2).process(records)

    assert len(just_fitting) == 2
    assert len(with_room) == 1


def test_a_row_that_fits_no_batch_is_refused_and_the_others_are_not(models_dir: Path) -> None:
    """A row that fits no batch is refused and the others are not."""
    records = [query_record(Query(f"q{n}", "snips", "hello"), n) for n in range(4)]
    records.append(query_record(Query("huge", "snips", "h" * 450), 4))

    out = published(make_stage(models_dir, max_batch_bytes=700).process(records))

    assert sorted(row.query_id for row in out.rows) == ["q0", "q1", "q2", "q3"]
    assert [(e.id, e.reason, e.stage) for e in out.errors] == [
        ("huge", Reason.PAYLOAD_TOO_LARGE, "schedule")
    ]
    assert [dead.value for dead in out.dead_letters] == [records[-1].value]


def test_a_window_planned_again_has_the_same_batches(models_dir: Path) -> None:
    """After a crash another process, another clock, the same records."""
    records = [query_record(Query(f"q{n}", "snips", "hello " * (1 + n % 9)), n) for n in range(89)]
    limits = PlanLimits(max_batch_rows=16)

    first, again = (
        published(
            make_stage(models_dir, limits=limits, wall_clock_s=partial(float, at)).process(records)
        )
        for at in (NOW_MS / 1000, NOW_MS / 1000 + 60)
    )

    assert [b.batch_id for b in first.batches[0]] == [b.batch_id for b in again.batches[0]]
    assert len({b.batch_id for b in first.batches[0]}) == len(first.batches[0]) == 6


def test_batches_are_spread_over_the_pools_partitions(models_dir: Path) -> None:
    """Batches are spread over the pools partitions."""
    records = [query_record(Query(f"q{n}", "snips", "hello"), n) for n in range(64)]
    stage = make_stage(models_dir, limits=PlanLimits(max_batch_rows=8), num_partitions=4)

    outgoing = stage.process(records)

    assert Counter(record.partition for record in outgoing) == {0: 2, 1: 2, 2: 2, 3: 2}


def test_a_reply_topic_is_used_only_from_the_allow_list(models_dir: Path) -> None:
    """A reply topic is used only from the allow list."""
    headers: Headers = (*JSON, ("reply_to", b"team-a.answers"))
    record = _raw(_invalid(task="nobody"), headers)

    ignoring = published(make_stage(models_dir).process([record]))
    allowing = published(make_stage(models_dir, reply_topics={"team-a.answers"}).process([record]))
    denying = published(make_stage(models_dir, reply_topics={"other"}).process([record]))

    assert ignoring.error_records[0].topic == TOPICS.results
    assert allowing.error_records[0].topic == "team-a.answers"
    assert denying.error_records[0].topic == TOPICS.results
    assert denying.errors[0].reason is Reason.REPLY_TOPIC_DENIED
