"""One fixed example of every message, with every field set."""

from messages.batch import Batch, BatchRow
from messages.digest import input_digest
from messages.errors import ErrorAnswer, Reason
from messages.escalation import Escalation, SmallLevelOutput
from messages.origin import Origin
from messages.original_record import OriginalRecord
from messages.query import Query, QueryParameters
from messages.reply import ReplyAddress
from messages.result import Result
from messages.task_event import TaskEvent, TaskLevel, TaskReference, TaskRevision

TEXT = "when is my next bill due"
PAIR = "the bill is due on friday \u2713"

PARAMETERS = QueryParameters(
    accuracy_target=0.95,
    latency_slo_ms=250.0,
    level=1,
    min_confidence=0.5,
    top_k=3,
    priority=2,
)
QUERY = Query(
    id="0198f2aa-7c1e-7a4b-8f3e-0123456789ab",
    task="banking77@3",
    text=TEXT,
    text_pair=PAIR,
    parameters=PARAMETERS,
    ttl_ms=5_000,
    expires_at_ms=1_795_430_400_123,
)
PLAIN_QUERY = Query(id="q-1", task="banking77", text=TEXT)

ORIGIN = Origin("petstream.queries", "AbCdEfGhIjKlMnOpQrStUv", 3, 17)
REFERENCE = TaskReference("banking77", 3, "sha256:" + "0123456789abcdef" * 4)
REPLY = ReplyAddress(
    key=b"\x00key\xff",
    encoding="msgpack",
    envelope="native",
    headers=(
        ("kafka_correlationId", bytes(range(240, 256))),
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ),
    topic="tenant.replies",
)
CLOUDEVENT_REPLY = ReplyAddress(
    key=None,
    encoding="json",
    envelope="cloudevents",
    headers=(
        ("ce_id", b"A234-1234-1234"),
        ("ce_subject", b"banking77@3"),
        ("ce_correlationid", b"order-17"),
    ),
)
TIMINGS = (("queue", 1.5), ("schedule", 0.25))
SMALL_OUTPUT = SmallLevelOutput(
    level=0, scores=b"\x00\x00\x80>\x00\x00@?", confidence=0.75, batch_id="b-0"
)

ORIGINAL = OriginalRecord(b'{"text": ["as it came"]}', (("task", b"banking77"), ("odd", b"\xff")))
ROW = BatchRow(
    origin=ORIGIN,
    query_id=QUERY.id,
    task_index=0,
    token_ids=b"\x65\x00\x00\x00\x66\x00\x00\x00",
    text=TEXT,
    text_pair=PAIR,
    parameters=PARAMETERS,
    reply=REPLY,
    original=ORIGINAL,
    input_digest=input_digest(TEXT, PAIR),
    appended_ms=1_795_430_395_000,
    deadline_ms=1_795_430_400_000,
    timings_ms=TIMINGS,
    small_output=SMALL_OUTPUT,
    attempt=2,
)
PLAIN_ROW = BatchRow(
    origin=Origin("petstream.queries", "AbCdEfGhIjKlMnOpQrStUv", 3, 18),
    query_id="q-1",
    task_index=1,
    token_ids=b"\x65\x00\x00\x00",
    text=TEXT,
    text_pair=None,
    parameters=QueryParameters(),
    reply=ReplyAddress(key=None),
    original=OriginalRecord(TEXT.encode()),
    input_digest=input_digest(TEXT),
    appended_ms=1_795_430_395_001,
)
BATCH = Batch(
    batch_id="b-1",
    level=1,
    backbone="minilm-l6",
    policy="packed",
    created_ms=1_795_430_395_100,
    tasks=(REFERENCE, TaskReference("snips", 1, "sha256:" + "ab" * 32)),
    rows=(ROW, PLAIN_ROW),
)
ESCALATION = Escalation(
    origin=ORIGIN,
    query_id=QUERY.id,
    task=REFERENCE,
    next_level=1,
    text=TEXT,
    text_pair=PAIR,
    kept_words=(0, 2, 5),
    parameters=PARAMETERS,
    reply=REPLY,
    original=ORIGINAL,
    input_digest=input_digest(TEXT, PAIR),
    appended_ms=1_795_430_395_000,
    deadline_ms=1_795_430_400_000,
    timings_ms=TIMINGS,
    small_output=SMALL_OUTPUT,
    attempt=2,
)
RESULT = Result(
    id=QUERY.id,
    task="banking77",
    task_revision=3,
    origin=ORIGIN,
    level=1,
    confidence=0.875,
    labels=("card_arrival", "card_linking"),
    scores=(0.875, 0.125),
    kept_tokens=9,
    timings_ms=TIMINGS,
    input_digest=input_digest(TEXT, PAIR),
    batch_id="b-1",
    attempt=2,
)
VALUE_RESULT = Result(
    id="q-1",
    task="stsb",
    task_revision=1,
    origin=ORIGIN,
    level=0,
    confidence=1.0,
    value=-2.5,
)
TAGS_RESULT = Result(
    id="q-1",
    task="ner",
    task_revision=1,
    origin=ORIGIN,
    level=0,
    confidence=0.5,
    tags=((0, 4, "PER"), (5, 9, "LOC")),
)
EMBEDDING_RESULT = Result(
    id="q-1",
    task="sentences",
    task_revision=1,
    origin=ORIGIN,
    level=0,
    confidence=1.0,
    embedding=(0.5, -0.10000000149011612, 3.4028234663852886e38, 1.401298464324817e-45),
)
"""One number that float32 has exactly, 0.1 as float32 has it, its largest and its least."""
ERROR = ErrorAnswer(
    id="q-1",
    task="banking77@3",
    origin=ORIGIN,
    reason=Reason.DEADLINE_PAST,
    message="the deadline passed 12 ms before the query was scheduled",
    stage="schedule",
    timings_ms=TIMINGS,
    input_digest=input_digest(TEXT),
    attempt=1,
)
TASK_EVENT = TaskEvent(
    name="banking77",
    retired=False,
    revisions=(
        TaskRevision(
            reference=TaskReference("banking77", 2, "sha256:" + "cd" * 32),
            kind="single_label",
            num_outputs=77,
            takes_pair=False,
            levels=(TaskLevel(0, "minilm-l3", "lora", 128),),
        ),
        TaskRevision(
            reference=REFERENCE,
            kind="single_label",
            num_outputs=77,
            takes_pair=False,
            levels=(
                TaskLevel(0, "minilm-l3", "adapter", 128),
                TaskLevel(1, "minilm-l6", "adapter", 256),
            ),
        ),
    ),
    aliases=(("canary", 3), ("prod", 2)),
)
EMBEDDING_TASK_EVENT = TaskEvent(
    name="sentences",
    retired=False,
    revisions=(
        TaskRevision(
            reference=TaskReference("sentences", 1, "sha256:" + "ef" * 32),
            kind="embedding",
            num_outputs=384,
            takes_pair=False,
            levels=(TaskLevel(0, "minilm-l6", "lora", 256),),
        ),
    ),
)
