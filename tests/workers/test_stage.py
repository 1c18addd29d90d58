"""A worker's stage on real weights and real tasks: every row leaves as exactly one record."""

import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgpack  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from messages.answer_codec import decode_answer
from messages.batch import Batch, BatchRow
from messages.batch_codec import encode_batch
from messages.errors import ErrorAnswer, Reason
from messages.escalation import SmallLevelOutput
from messages.escalation_codec import decode_escalation
from messages.origin import Origin
from messages.original_record import OriginalRecord
from messages.query import QueryParameters
from messages.reply import ReplyAddress
from messages.result import Result
from messages.task_event import TaskReference
from messages.topics import TopicNames
from tasks.artifact import open_artifact
from tasks.artifact_writer import TrainedLevel, write_artifact
from tasks.backbone_shape import BackboneShape
from tasks.description import BackboneReference
from tasks.pets.bitfit import BitFit
from tasks.store import TaskStore
from tests.kept_figures import kept_figures
from tests.workers.stored_tasks import write_bare_embedding
from transport.errors import VersionMismatch
from transport.records import OutgoingRecord, Record
from workers.backbone import Backbone
from workers.backbone_store import BackboneStore
from workers.engine import Engine, EngineRow
from workers.errors import DeviceUnavailableError
from workers.stage import Logits, WorkerStage
from workers.task_manager import TaskManager

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
TOPICS = TopicNames("test")
NOW_S = 1_800_000_000.0
SPAM = "WINNER!! You have been selected to receive a 900 pound prize reward! Call 09061701461 now"
HAM = "Ok, I will be home by six, shall we have dinner together?"


class Bench:
    """One worker's stage with the tasks of `examples/`, and a way to write batches for it."""

    def __init__(self, store: TaskStore, backbones: BackboneStore, level: int) -> None:
        self.level = level
        folder = backbones.fetch(("minilm-l3", "minilm-l6")[level])
        self.engine = engine = Engine(Backbone.load(folder), threads=1, figures_file=kept_figures())
        self.backbone_name = folder.name
        self.references = {
            name: TaskReference(name, 1, open_artifact(store.root, (name, "1")).digest)
            for name in ("sms_spam", "clinc150")
        }
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tasks = TaskManager(store, engine, level=level, memory_limit_bytes=1 << 28)
        self.stage = WorkerStage(
            level=level,
            engine=engine,
            tasks=self.tasks,
            backbone_folder=folder,
            topics=TOPICS,
            wall_clock_s=lambda: NOW_S,
        )

    def row(self, text: str, task_index: int = 0, offset: int = 0) -> BatchRow:
        """Return a row of `text`, as a scheduler would write it."""
        ids = np.asarray(self.tokenizer.encode(text).ids, "<u4")
        return BatchRow(
            origin=Origin("test.queries", "", 0, offset),
            query_id=f"q{offset}",
            task_index=task_index,
            token_ids=ids.tobytes(),
            text=text,
            text_pair=None,
            parameters=QueryParameters(),
            reply=ReplyAddress(key=b"k%d" % offset, encoding="json"),
            original=OriginalRecord(text.encode(), (("task", b"sms_spam@1"), ("odd", b"\xff"))),
            input_digest=b"12345678",
            appended_ms=int(1000 * NOW_S) - 40,
            timings_ms=(("queue_l0", 20.0),),
        )

    def batch(self, rows: Sequence[BatchRow], *tasks: TaskReference) -> Batch:
        """Return a batch of these rows; of sms_spam unless told otherwise."""
        return Batch(
            batch_id="b1",
            level=self.level,
            backbone=self.backbone_name,
            policy="packed",
            created_ms=int(1000 * NOW_S) - 10,
            tasks=tasks or (self.references["sms_spam"],),
            rows=tuple(rows),
        )

    def run(self, batch: Batch) -> list[OutgoingRecord]:
        """Send a batch through its wire form and the stage."""
        return self.run_bytes(encode_batch(batch).value)

    def run_bytes(self, value: bytes) -> list[OutgoingRecord]:
        """Give the stage a record of these bytes."""
        topic = TOPICS.batches(self.level)
        return list(self.stage.process([Record(topic, 3, 7, None, value, (), 0)]))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, backbones: BackboneStore) -> TaskStore:
    store = TaskStore(tmp_path_factory.mktemp("tasks"))
    shapes = {
        name: Backbone.load(backbones.fetch(name)).shape for name in ("minilm-l3", "minilm-l6")
    }
    for name in ("sms_spam", "clinc150"):
        store.add(EXAMPLES / name, shapes)
    return store


@pytest.fixture(scope="module")
def small(store: TaskStore, backbones: BackboneStore) -> Bench:
    return Bench(store, backbones, 0)


@pytest.fixture(scope="module")
def large(store: TaskStore, backbones: BackboneStore) -> Bench:
    return Bench(store, backbones, 1)


def answers(records: Sequence[OutgoingRecord]) -> list[Result | ErrorAnswer]:
    return [
        decode_answer(record.value, record.headers)
        for record in records
        if record.topic == TOPICS.results
    ]


def test_certain_rows_are_answered_with_their_labels(small: Bench) -> None:
    """Rows of two tasks in one batch; each answer names its query, its task and its label."""
    rows = [small.row(SPAM, 0, 1), small.row(HAM, 0, 2), small.row("what's my balance", 1, 3)]
    rows = [replace(row, parameters=QueryParameters(min_confidence=0.0)) for row in rows]
    tasks = (small.references["sms_spam"], small.references["clinc150"])

    records = small.run(small.batch(rows, *tasks))

    given = answers(records)
    assert [(a.id, a.task, a.labels) for a in given if isinstance(a, Result)] == [
        ("q1", "sms_spam", ("spam",)),
        ("q2", "sms_spam", ("ham",)),
        ("q3", "clinc150", ("balance",)),
    ]
    assert [record.key for record in records] == [b"k1", b"k2", b"k3"]


def test_answers_carry_origin_digest_level_and_timings(small: Bench) -> None:
    """What a caller needs to trust and to explain an answer comes with it."""
    row = replace(small.row(HAM, offset=9), parameters=QueryParameters(min_confidence=0.0))

    (given,) = answers(small.run(small.batch([row])))

    assert isinstance(given, Result)
    assert given.origin == row.origin
    assert given.input_digest == row.input_digest
    assert (given.level, given.task_revision, given.batch_id) == (0, 1, "b1")
    assert given.kept_tokens == len(row.token_ids) // 4
    assert dict(given.timings_ms)["queue_l0"] == 20.0
    assert dict(given.timings_ms)["wait_l0"] == 10.0


def test_a_doubtful_row_goes_on_with_what_was_learnt(small: Bench) -> None:
    """An escalation carries the text, the calibrated scores and everything the answer needs."""
    row = replace(small.row(HAM, offset=5), parameters=QueryParameters(min_confidence=1.0))

    (record,) = small.run(small.batch([row]))

    assert record.topic == TOPICS.escalations
    escalation = decode_escalation(record.value)
    scores = np.frombuffer(escalation.small_output.scores, "<f4")
    assert escalation.next_level == 1
    assert escalation.text == HAM
    assert (escalation.origin, escalation.reply) == (row.origin, row.reply)
    assert scores.sum() == pytest.approx(1, abs=1e-5)
    assert escalation.small_output.confidence == pytest.approx(scores.max(), abs=1e-6)


def test_a_forced_level_answers_whatever_its_confidence(small: Bench) -> None:
    """`level` in the query is final."""
    parameters = QueryParameters(level=0, min_confidence=1.0)
    row = replace(small.row(HAM), parameters=parameters)

    (given,) = answers(small.run(small.batch([row])))

    assert isinstance(given, Result)


def test_the_large_level_answers_for_both(large: Bench) -> None:
    """The terminal answer is the weighted ensemble: a contrary small output lowers confidence."""
    plain = large.row(HAM)
    contrary = SmallLevelOutput(0, np.array([0.0, 1.0], "<f4").tobytes(), 1.0, "b0")
    labels = large.references["sms_spam"]

    (alone,) = answers(large.run(large.batch([plain], labels)))
    (both,) = answers(large.run(large.batch([replace(plain, small_output=contrary)], labels)))

    assert isinstance(alone, Result)
    assert isinstance(both, Result)
    assert alone.level == both.level == 1
    assert both.confidence < alone.confidence - 0.2


def test_expired_rows_are_not_computed(small: Bench) -> None:
    """A passed deadline is an error answer; the neighbour is answered."""
    late = replace(small.row(HAM, offset=1), deadline_ms=int(1000 * NOW_S))
    good = replace(small.row(HAM, offset=2), parameters=QueryParameters(level=0))

    records = small.run(small.batch([late, good]))

    first, second = answers(records)
    assert isinstance(first, ErrorAnswer)
    assert first.reason is Reason.DEADLINE_PAST
    assert isinstance(second, Result)
    (dead,) = [record for record in records if record.topic == TOPICS.dead_letters]
    assert (dead.key, dead.value) == (b"k1", late.original.value)
    assert dead.headers[:2] == late.original.headers
    assert dict(dead.headers)["__streams.errors.offset"] == b"1"


def test_a_task_that_cannot_be_loaded_costs_only_its_own_rows(small: Bench) -> None:
    """Another digest than the store's is not answered with the wrong weights."""
    wrong = replace(small.references["sms_spam"], digest="sha256:" + 64 * "0")
    rows = [small.row(HAM, 0, 1), small.row("what's my balance", 1, 2)]
    rows = [replace(row, parameters=QueryParameters(level=0)) for row in rows]

    first, second = answers(small.run(small.batch(rows, wrong, small.references["clinc150"])))

    assert isinstance(first, ErrorAnswer)
    assert first.reason is Reason.TASK_UNAVAILABLE
    assert isinstance(second, Result)


def test_one_row_that_fails_costs_no_other(small: Bench) -> None:
    """A token id outside the vocabulary fails its row alone, found by halving the batch."""
    rows = [
        replace(small.row(HAM, offset=number), parameters=QueryParameters(level=0))
        for number in range(7)
    ]
    rows[4] = replace(rows[4], token_ids=np.array([101, 4_000_000, 102], "<u4").tobytes())

    given = answers(small.run(small.batch(rows)))

    assert [isinstance(answer, Result) for answer in given] == 4 * [True] + [False] + 2 * [True]
    failed = given[4]
    assert isinstance(failed, ErrorAnswer)
    assert failed.reason is Reason.MODEL_FAILED


@pytest.mark.parametrize("error", [KeyError("elu"), TypeError("no tensor"), AssertionError()])
def test_a_task_whose_code_fails_ends_no_process(
    small: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Its rows are answered with errors; left in the topic, they would end the next process too."""
    run = small.engine.run

    def fails(rows: Sequence[EngineRow]) -> list[NDArray[np.float32]]:
        if any(len(row.token_ids) == 3 for row in rows):
            raise error
        return run(rows)

    monkeypatch.setattr(small.engine, "run", fails)
    rows = [
        replace(small.row(HAM, offset=number), parameters=QueryParameters(level=0))
        for number in range(4)
    ]
    rows[2] = replace(rows[2], token_ids=np.array([101, 2_000, 102], "<u4").tobytes())

    given = answers(small.run(small.batch(rows)))

    assert [isinstance(answer, Result) for answer in given] == [True, True, False, True]
    failed = given[2]
    assert isinstance(failed, ErrorAnswer)
    assert (failed.reason, failed.message) == (Reason.MODEL_FAILED, type(error).__name__)


def test_two_threads_answer_as_one(small: Bench) -> None:
    """A pipeline has two units at a stage: neither's records depend on the other's."""
    tasks = (small.references["sms_spam"], small.references["clinc150"])
    texts = (SPAM, HAM, "what's my balance", "how much is a pound in euros")
    batches = [
        small.batch(
            [small.row(f"{text} {number}", n // 2, n) for n, text in enumerate(texts)], *tasks
        )
        for number in range(40)
    ]
    alone = [small.run(batch) for batch in batches]

    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(small.run, batches))

    assert together == alone


def test_a_unit_waits_for_those_before_it_with_its_tasks_at_hand(
    small: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a task takes to load is no time of the cores; the wait counts as one."""
    seen: list[int] = []
    times_s = iter([NOW_S + 2.0, NOW_S + 5.0])
    monkeypatch.setattr(small.stage, "_wall_clock_s", lambda: next(times_s))

    def turn() -> None:
        seen.append(small.tasks._num_held)

    monkeypatch.setattr(small.engine, "wait_for_turn", turn)

    (given,) = answers(small.run(small.batch([small.row(SPAM)])))

    assert seen == [1]
    assert dict(given.timings_ms)["wait_l0"] == 2010.0
    assert dict(given.timings_ms)["compute_l0"] == 3000.0


def test_no_time_is_negative_when_the_clock_is_set_back(
    small: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    times_s = iter([2_000_000_000.0, 1_999_999_000.0])
    monkeypatch.setattr(small.stage, "_wall_clock_s", lambda: next(times_s))

    (given,) = answers(small.run(small.batch([small.row(SPAM)])))

    assert dict(given.timings_ms)["compute_l0"] == 0.0


@pytest.mark.parametrize(
    "carried",
    [
        pytest.param(SmallLevelOutput(0, 12 * b"\0", 0.5, "b0"), id="scores of three labels"),
        pytest.param(SmallLevelOutput(5, 8 * b"\0", 0.5, "b0"), id="a level that the task lacks"),
        pytest.param(SmallLevelOutput(0, 8 * b"\xff", 0.5, "b0"), id="NaN"),
    ],
)
def test_a_row_whose_carried_output_does_not_fit_costs_no_other(
    large: Bench, carried: SmallLevelOutput
) -> None:
    """It is refused by itself: an error that left the stage would end every worker in turn."""
    bad = replace(large.row(HAM, offset=1), small_output=carried)

    first, second = answers(large.run(large.batch([bad, large.row(SPAM, offset=2)])))

    assert isinstance(first, ErrorAnswer)
    assert first.reason in (Reason.MODEL_FAILED, Reason.NAN_OUTPUT)
    assert isinstance(second, Result)
    assert second.labels == ("spam",)


@pytest.fixture(scope="module")
def tagger(
    store: TaskStore, small: Bench, large: Bench, tmp_path_factory: pytest.TempPathFactory
) -> TaskReference:
    """A tagging task of both levels, with random heads and an unfitted cascade."""
    folder = tmp_path_factory.mktemp("tagger") / "tagger"
    pet = BitFit()
    shapes = {bench.backbone_name: bench.engine.backbone.shape for bench in (small, large)}
    levels = [
        TrainedLevel(
            level=bench.level,
            backbone=BackboneReference(
                name=bench.backbone_name, digest=bench.engine.backbone.digest
            ),
            shape=shapes[bench.backbone_name],
            pet=pet,
            pooling="none",
            max_tokens=128,
            head_weight=np.random.default_rng(bench.level).normal(
                size=(3, shapes[bench.backbone_name].hidden_size)
            ),
            head_bias=np.zeros(3),
            tensors=zeros(pet, shapes[bench.backbone_name]),
        )
        for bench in (small, large)
    ]
    write_artifact(
        folder,
        name="tagger",
        kind="tagging",
        labels=("O", "B-thing", "I-thing"),
        takes_pair=False,
        source="",
        licence="",
        levels=levels,
    )
    return TaskReference("tagger", 1, store.add(folder, shapes).digest)


def test_a_tagging_row_goes_on_without_scores_of_tokens(
    small: Bench, tagger: TaskReference
) -> None:
    """No level ensembles with them, and a long row's exceed what an escalation may be."""
    (record,) = small.run(small.batch([small.row(HAM)], tagger))

    carried = decode_escalation(record.value).small_output
    assert len(carried.scores) == 4
    assert 0 < carried.confidence < 1


def test_a_tagging_row_is_answered_with_spans_of_whole_words(
    large: Bench, tagger: TaskReference
) -> None:
    """At characters of the text, punctuation included; a neighbour with foreign tokens fails."""
    carried = SmallLevelOutput(0, 4 * b"\0", 0.5, "b0")
    rows = [replace(large.row(SPAM, offset=n), small_output=carried) for n in (1, 2)]
    rows[1] = replace(rows[1], text=HAM)

    first, second = answers(large.run(large.batch(rows, tagger)))

    assert isinstance(first, Result)
    assert first.tags
    edges = {0, len(SPAM), *(i for i, c in enumerate(SPAM) if c == " ")}
    assert all(
        label == "thing" and end in edges and (start == 0 or start - 1 in edges)
        for start, end, label in first.tags
    )
    assert isinstance(second, ErrorAnswer)
    assert second.reason is Reason.MODEL_FAILED


def test_an_embedding_is_answered_with_its_vector_beside_labels(
    small: Bench, store: TaskStore, backbones: BackboneStore, tmp_path: Path
) -> None:
    """In one batch; what a query says of labels and confidence changes no vector."""
    backbone = backbones.fetch("minilm-l3")
    artifact = write_bare_embedding(tmp_path / "sentences", backbone)
    shapes = {backbone.name: small.engine.backbone.shape}
    digest = store.add(artifact.folder, shapes).digest
    asks = QueryParameters(top_k=1, min_confidence=1.0, accuracy_target=1.0)
    rows = [
        small.row(SPAM, offset=1),
        small.row(HAM, task_index=1, offset=2),
        replace(small.row(HAM, task_index=1, offset=3), parameters=asks),
    ]
    batch = small.batch(rows, small.references["sms_spam"], TaskReference("sentences", 1, digest))

    spam, first, second = answers(small.run(batch))

    assert isinstance(spam, Result)
    assert isinstance(first, Result)
    assert isinstance(second, Result)
    assert (spam.labels, spam.embedding) == (("spam",), None)
    assert first.embedding is not None
    assert len(first.embedding) == small.engine.backbone.shape.hidden_size
    assert np.linalg.norm(first.embedding) == pytest.approx(1, abs=1e-6)
    assert (first.confidence, first.labels, first.value, first.tags) == (1.0, (), None, None)
    assert second.embedding == pytest.approx(first.embedding, abs=1e-6)


def zeros(pet: BitFit, shape: BackboneShape) -> dict[str, NDArray[np.float32]]:
    """Tensors of a PET that changes nothing."""
    return {
        name: np.zeros([size or 0 for size in spec.shape], np.float32)
        for name, spec in pet.tensor_specs(shape).items()
    }


def test_an_answer_that_its_topic_would_not_take_is_refused(
    small: Bench, store: TaskStore, tmp_path: Path
) -> None:
    """The broker would refuse the whole transaction; the same query with top_k is answered."""
    shape = small.engine.backbone.shape
    pet = BitFit()
    many = 5_000
    level = TrainedLevel(
        level=0,
        backbone=BackboneReference(name="minilm-l3", digest=small.engine.backbone.digest),
        shape=shape,
        pet=pet,
        pooling="mean",
        max_tokens=128,
        head_weight=np.zeros((many, shape.hidden_size)),
        head_bias=np.zeros(many),
        tensors=zeros(pet, shape),
    )
    write_artifact(
        tmp_path / "wide",
        name="wide",
        kind="multi_label",
        labels=[f"{number:0250d}" for number in range(many)],
        takes_pair=False,
        source="",
        licence="",
        levels=[level],
    )
    reference = TaskReference("wide", 1, store.add(tmp_path / "wide", {"minilm-l3": shape}).digest)
    good = replace(small.row(HAM, offset=2), parameters=QueryParameters(top_k=3))

    first, second = answers(small.run(small.batch([small.row(HAM, offset=1), good], reference)))

    assert isinstance(first, ErrorAnswer)
    assert first.reason is Reason.PAYLOAD_TOO_LARGE
    assert isinstance(second, Result)
    assert len(second.labels) == 3


def test_a_batch_of_another_version_stops_the_worker(small: Bench) -> None:
    """Set aside, its queries would never be answered: a newer worker can read it."""
    value = encode_batch(small.batch([small.row(HAM)])).value
    value = msgpack.packb(msgpack.unpackb(value) | {"v": "2.0"})

    with pytest.raises(VersionMismatch, match=r"written by version 2\.0.*upgrade this process"):
        small.run_bytes(value)


@pytest.mark.parametrize(
    "value",
    [b"", b"\xc1", b"not a batch", b"\x81\xa1v\xa1x", b"\x80"],
    ids=["empty", "c1", "text", "no version", "nothing in it"],
)
def test_a_corrupt_batch_is_set_aside(small: Bench, value: bytes) -> None:
    """Bytes that are no batch name no query: they go to the dead letters as they are."""
    (record,) = small.run_bytes(value)

    assert record.topic == TOPICS.dead_letters
    assert record.value == value
    assert dict(record.headers)["petstream-error-code"] == b"INVALID_BATCH"


def test_a_batch_that_the_broker_cannot_give_is_set_aside(small: Bench) -> None:
    """Its coordinates are all that is left."""
    record = Record(TOPICS.batches(0), 3, 7, None, None, (), 0, corrupt="cannot be inflated")

    (dead,) = small.stage.process([record])

    assert dead.topic == TOPICS.dead_letters
    assert dict(dead.headers)["petstream-corrupt"] == b"cannot be inflated"


def test_a_batch_of_another_level_is_answered_with_errors(small: Bench) -> None:
    """Weights of one level never answer for another, and nobody waits for ever."""
    rows = [small.row(HAM, offset=1), small.row(SPAM, offset=2)]

    records = small.run(replace(small.batch(rows), level=1))

    given = answers(records)
    assert [answer.reason for answer in given if isinstance(answer, ErrorAnswer)] == (
        2 * [Reason.INVALID_BATCH]
    )
    dead = [record for record in records if record.topic == TOPICS.dead_letters]
    assert [record.value for record in dead] == [HAM.encode(), SPAM.encode()]


def test_batches_that_wait_are_run_together(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several batches are one pass; a bad one among them costs the others nothing."""
    batches = [
        small.batch([replace(small.row(text, offset=n), parameters=QueryParameters(level=0))])
        for n, text in enumerate((SPAM, HAM, SPAM))
    ]
    values = [encode_batch(replace(b, batch_id=f"b{n}")).value for n, b in enumerate(batches)]
    passes: list[int] = []
    run = small.stage._engine.run

    def counted(rows: Sequence[EngineRow]) -> list[Logits]:
        passes.append(len(rows))
        return run(rows)

    monkeypatch.setattr(small.stage._engine, "run", counted)
    topic = TOPICS.batches(0)

    records = small.stage.process(
        [
            Record(topic, 3, offset, None, value, (), 0)
            for offset, value in enumerate([values[0], b"not a batch", *values[1:]])
        ]
    )

    given = answers(records)
    assert passes == [3]
    assert [(a.id, a.labels, a.batch_id) for a in given if isinstance(a, Result)] == [
        ("q0", ("spam",), "b0"),
        ("q1", ("ham",), "b1"),
        ("q2", ("spam",), "b2"),
    ]
    assert [r.value for r in records if r.topic == TOPICS.dead_letters] == [b"not a batch"]


def test_the_same_batch_gives_the_same_records(small: Bench) -> None:
    """A batch that is run again after a crash answers byte for byte what it answered before."""
    batch = small.batch([small.row(HAM, offset=1), small.row(SPAM, offset=2)])

    assert small.run(batch) == small.run(batch)


def test_a_failed_pass_leaves_memory_before_the_next_try(
    small: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had computed may be the memory that half of the rows need."""
    run = small.engine.run
    failed: list[weakref.ref[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]] = []

    def fails_together(rows: Sequence[EngineRow]) -> list[NDArray[np.float32]]:
        assert all(states() is None for states in failed), "an earlier pass is still there"
        if len(rows) > 1:
            hidden = np.zeros(1, np.float32)
            failed.append(weakref.ref(hidden))
            raise RuntimeError("out of memory")
        return run(rows)

    monkeypatch.setattr(small.engine, "run", fails_together)

    rows = [
        replace(small.row(HAM, offset=n), parameters=QueryParameters(level=0)) for n in range(4)
    ]
    given = answers(small.run(small.batch(rows)))

    assert len(failed) == 3
    assert all(isinstance(answer, Result) for answer in given)


def test_a_lost_device_ends_the_process_with_its_rows_unanswered(
    small: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each later row would fail on it; the next process gets them all."""

    def fails(_: Sequence[EngineRow]) -> list[NDArray[np.float32]]:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(small.engine, "run", fails)
    monkeypatch.setattr(small.engine, "device", torch.device("meta"))

    with pytest.raises(DeviceUnavailableError, match="no longer computes"):
        small.run(small.batch([small.row(HAM)]))
