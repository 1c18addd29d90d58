"""A scheduling stage with a small tokenizer of its own, and readers of what it publishes."""

import string
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from messages.answer_codec import decode_answer
from messages.batch import Batch, BatchRow
from messages.batch_codec import decode_batch
from messages.errors import ErrorAnswer
from messages.query import Query
from messages.query_codec import encode_query
from messages.task_event import TaskEvent, TaskKind, TaskLevel, TaskReference, TaskRevision
from messages.task_event_codec import encode_task_event
from messages.topics import TopicNames
from scheduler.admission import Admission
from scheduler.cost_model import default_cost_model
from scheduler.placement import Placement
from scheduler.planning import PlanLimits
from scheduler.registry import TaskDirectory
from scheduler.stage import Planning, SchedulingStage
from scheduler.tokenisation import Tokenizers
from scheduler.validation import TextLimits
from transport.records import OutgoingRecord, Record

TOPICS = TopicNames("petstream")
NOW_MS = 1_700_000_000_000
CLS, SEP = 2, 3
WORDS = ("hello", "world", "alpha", "beta", "gamma", "card", "bank")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_VOCABULARY = (
    *_SPECIAL,
    *WORDS,
    *(string.ascii_lowercase + string.digits + string.punctuation),
    *(f"##{character}" for character in string.ascii_lowercase + string.digits),
)


def write_backbones(models_dir: Path) -> Path:
    """Write a BERT-like tokenizer as that of `minilm-l3` and of `minilm-l6`."""
    ids = {token: number for number, token in enumerate(_VOCABULARY)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    tokenizer.add_special_tokens(list(_SPECIAL))
    for backbone in ("minilm-l3", "minilm-l6"):
        (models_dir / backbone).mkdir(parents=True)
        tokenizer.save(str(models_dir / backbone / "tokenizer.json"))
    return models_dir


def token(word: str) -> int:
    """Return the id of a word of the small vocabulary."""
    return _VOCABULARY.index(word)


def revision(
    name: str,
    number: int = 1,
    *,
    takes_pair: bool = False,
    kind: TaskKind = "single_label",
    levels: tuple[int, ...] = (0, 1),
    max_tokens: int = 16,
    backbones: Sequence[str] = ("minilm-l3", "minilm-l6"),
) -> TaskRevision:
    """Return a revision of a LoRA task."""
    return TaskRevision(
        TaskReference(name, number, f"sha256:{number:064x}"),
        kind,
        3,
        takes_pair,
        tuple(TaskLevel(level, backbones[level], "lora", max_tokens) for level in levels),
    )


TASKS = (
    TaskEvent("banking77", False, (revision("banking77", 1), revision("banking77", 2))),
    TaskEvent("snips", False, (revision("snips"),)),
    TaskEvent("sms_spam", False, (revision("sms_spam"),)),
    TaskEvent("stsb", False, (revision("stsb", takes_pair=True, kind="regression"),)),
    TaskEvent("small-only", False, (revision("small-only", levels=(0,)),)),
    TaskEvent("exotic", False, (revision("exotic", backbones=("nowhere", "nowhere")),)),
    TaskEvent("outside", False, (revision("outside", backbones=("a/../../..", "b")),)),
    TaskEvent("old-task", True, (revision("old-task"),)),
)


def make_stage(
    models_dir: Path,
    *,
    levels: Collection[int] = (0, 1),
    policy: str = "packed",
    limits: PlanLimits | None = None,
    max_batch_bytes: int = 8_388_608,
    max_chars: int = 500,
    reply_topics: Collection[str] | None = None,
    num_partitions: int = 4,
    wall_clock_s: Callable[[], float] = lambda: NOW_MS / 1000,
) -> SchedulingStage:
    """Make a stage that serves `TASKS`."""
    directory = TaskDirectory()
    for event in TASKS:
        directory.apply(event.name.encode(), encode_task_event(event).value)
    return SchedulingStage(
        topics=TOPICS,
        admission=Admission(
            directory,
            levels=levels,
            topic_id="AAAAAAAAAAAAAAAAAAAAAA",
            text_limits=TextLimits(max_chars),
            reply_topics=reply_topics,
        ),
        tokenizers=Tokenizers(models_dir),
        planning=Planning(
            policy, limits or PlanLimits(), {}, default_cost_model(), max_batch_bytes
        ),
        placements={level: Placement(num_partitions) for level in levels},
        wall_clock_s=wall_clock_s,
    )


def query_record(query: Query, offset: int = 0, *, appended_ms: int = NOW_MS - 5) -> Record:
    """Return the record in which a native client publishes a query."""
    message = encode_query(query)
    return Record(
        TOPICS.queries, 0, offset, query.id.encode(), message.value, message.headers, appended_ms
    )


@dataclass(frozen=True, slots=True)
class Published:
    """What a stage published, decoded."""

    batches: dict[int, list[Batch]]
    """By level."""
    errors: list[ErrorAnswer]
    error_records: list[OutgoingRecord]
    dead_letters: list[OutgoingRecord]

    @property
    def rows(self) -> list[BatchRow]:
        """All rows of all batches."""
        return [row for batches in self.batches.values() for b in batches for row in b.rows]

    def origins(self) -> Counter[tuple[str, int, int]]:
        """Count what happened to each origin: one for each row and each error answer."""
        given = [row.origin for row in self.rows] + [error.origin for error in self.errors]
        return Counter((origin.topic, origin.partition, origin.offset) for origin in given)


def published(outgoing: Sequence[OutgoingRecord]) -> Published:
    """Decode and sort what a stage returned."""
    batches: dict[int, list[Batch]] = {}
    errors: list[ErrorAnswer] = []
    error_records: list[OutgoingRecord] = []
    dead_letters: list[OutgoingRecord] = []
    for record in outgoing:
        if record.topic == TOPICS.dead_letters:
            dead_letters.append(record)
        elif record.topic.startswith("petstream.batches."):
            level = int(record.topic.rsplit(".", 1)[1])
            batch = decode_batch(record.value)
            assert batch.level == level
            assert record.partition is not None
            batches.setdefault(level, []).append(batch)
        else:
            answer = decode_answer(record.value, record.headers)
            assert isinstance(answer, ErrorAnswer)
            errors.append(answer)
            error_records.append(record)
    return Published(batches, errors, error_records, dead_letters)


def token_ids(row: BatchRow) -> list[int]:
    """Return the token ids of a row."""
    return [int(number) for number in np.frombuffer(row.token_ids, "<u4")]
