"""A worker's stage: macro-batches in, their results, errors and escalations out.

Runs on the pipeline's compute threads and touches no Kafka client. Nothing here is remembered from
one batch to the next but loaded weights, so a batch that is run again gives the same records. Of
two threads one reads batches, loads tasks and writes answers while the other's rows are computed.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from messages.answer_codec import encode_answer
from messages.batch import Batch, BatchRow
from messages.batch_codec import decode_batch
from messages.errors import ErrorAnswer, MessageError, Reason, SchemaUnsupported
from messages.escalation import Escalation, SmallLevelOutput
from messages.escalation_codec import encode_escalation
from messages.limits import MAX_ANSWER_BYTES, MAX_ESCALATION_BYTES
from messages.result import Result
from messages.task_event import TaskReference
from messages.topics import TopicNames
from tasks.description import TaskDescription
from tasks.errors import TaskError
from tasks.word_tokens import WordToken
from transport.dead_letters import dead_letter
from transport.errors import VersionMismatch
from transport.records import OutgoingRecord, Record, published_record
from workers.answers import Answer, answer
from workers.cascade import LevelOutput, judge, next_level
from workers.engine import Engine, EngineRow
from workers.tagging import WordFinder, character_spans
from workers.task_manager import LoadedTask, TaskManager

logger = logging.getLogger(__name__)

Logits: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a row has no logits."""

    reason: Reason
    message: str
    stage: str


_Place: TypeAlias = tuple[int, int]
"""A row among batches: the number of its batch, and its number there."""


_Outcome: TypeAlias = _Refusal | tuple[LoadedTask, Logits]


class WorkerStage:
    """Runs macro-batches of one level.

    Every row leaves as exactly one record: a result, an error, or an escalation to the next
    level. One row's failure never touches its neighbours.
    """

    def __init__(
        self,
        *,
        level: int,
        engine: Engine,
        tasks: TaskManager,
        backbone_folder: Path,
        topics: TopicNames,
        wall_clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._level = level
        self._engine = engine
        self._tasks = tasks
        self._word_finder = WordFinder(backbone_folder)
        self._topics = topics
        self._wall_clock_s = wall_clock_s

    def process(self, records: Sequence[Record], /) -> Sequence[OutgoingRecord]:
        """Run the batches of `records` together, in one pass over the backbone.

        Raises:
            VersionMismatch: If a scheduler of another major version wrote one.
        """
        outgoing: list[OutgoingRecord] = []
        batches: list[Batch] = []
        for record in records:
            try:
                batch = _decoded(record)
            except SchemaUnsupported as error:
                raise VersionMismatch(record.source, record.offset, error.version) from error
            except MessageError as error:
                outgoing.append(self._set_aside(record, error))
                continue
            if batch.level == self._level:
                batches.append(batch)
            else:
                outgoing += self._refuse_batch(batch)
        outgoing += self._process_batches(batches)
        return outgoing

    def _set_aside(self, record: Record, error: MessageError) -> OutgoingRecord:
        # Only a scheduler writes here: nobody waits for an answer to bytes that name no query.
        logger.error("invalid batch %s/%s: %s", record.source, record.offset, error)
        return dead_letter(
            record,
            reason=Reason.INVALID_BATCH,
            message=str(error),
            stage="decode",
            attempt=1,
            topic=self._topics.dead_letters,
        )

    def _refuse_batch(self, batch: Batch) -> Iterator[OutgoingRecord]:
        message = f"a batch for level {batch.level} came to a worker of level {self._level}"
        logger.error("batch %s: %s", batch.batch_id, message)
        refusal = _Refusal(Reason.INVALID_BATCH, message, "decode")
        for row in batch.rows:
            yield from self._refuse(batch, row, refusal, row.timings_ms)

    def _process_batches(self, batches: Sequence[Batch]) -> Iterator[OutgoingRecord]:
        references = list(dict.fromkeys(task for batch in batches for task in batch.tasks))
        with self._tasks.acquire_all(references) as acquired:
            tasks = {
                reference: self._task_refusal(reference, task)
                if isinstance(task, TaskError)
                else task
                for reference, task in zip(references, acquired, strict=True)
            }
            self._engine.wait_for_turn()
            started_ms = 1000 * self._wall_clock_s()
            outcomes = self._outcomes(batches, tasks, started_ms)
        # The wall's clock may be set back meanwhile.
        compute_ms = max(0.0, 1000 * self._wall_clock_s() - started_ms)
        compute = (f"compute_l{self._level}", compute_ms)
        for batch_number, batch in enumerate(batches):
            wait = (f"wait_l{self._level}", max(0.0, started_ms - batch.created_ms))
            for row_number, row in enumerate(batch.rows):
                yield from self._settle_or_refuse(
                    batch,
                    row,
                    outcomes[batch_number, row_number],
                    (*row.timings_ms, wait, compute),
                )

    def _outcomes(
        self,
        batches: Sequence[Batch],
        tasks: Mapping[TaskReference, LoadedTask | _Refusal],
        now_ms: float,
    ) -> dict[_Place, _Outcome]:
        """Return each row's logits, or why it has none."""
        late = _Refusal(Reason.DEADLINE_PAST, "the deadline passed before compute", "compute")
        outcomes: dict[_Place, _Outcome] = {}
        runnable: dict[_Place, EngineRow] = {}
        for batch_number, batch in enumerate(batches):
            for row_number, row in enumerate(batch.rows):
                place = (batch_number, row_number)
                task = tasks[batch.tasks[row.task_index]]
                if row.deadline_ms is not None and row.deadline_ms <= now_ms:
                    outcomes[place] = late
                elif isinstance(task, _Refusal):
                    outcomes[place] = task
                else:
                    runnable[place] = EngineRow(task, _token_ids(row))
        return outcomes | self._run(runnable)

    def _run(self, rows: dict[_Place, EngineRow]) -> dict[_Place, _Outcome]:
        """Run rows together; where that fails, halve them until the failing row stands alone."""
        if not rows:
            return {}
        logits, failed = self._tried(list(rows.values()))
        if failed is not None:
            if len(rows) == 1:
                self._engine.check_device()
                return dict.fromkeys(rows, failed)
            places = list(rows)
            half = len(places) // 2
            return self._run({place: rows[place] for place in places[:half]}) | self._run(
                {place: rows[place] for place in places[half:]}
            )
        not_finite = _Refusal(Reason.NAN_OUTPUT, "the model's output is not finite", "compute")
        return {
            place: (row.task, row_logits) if np.isfinite(row_logits).all() else not_finite
            for (place, row), row_logits in zip(rows.items(), logits, strict=True)
        }

    def _tried(
        self, rows: list[EngineRow]
    ) -> tuple[Sequence[NDArray[np.float32]], _Refusal | None]:
        """Return the rows' logits, or why there are none.

        The error itself ends here, whatever it is: one that left would end the process, and the
        next, for ever, by the same batch. It holds on to what the pass had computed, which may be
        the memory that the next try needs.
        """
        try:
            return self._engine.run(rows), None
        except Exception as error:
            if len(rows) == 1:
                logger.warning("a row failed: %s", error, exc_info=True)
            return (), _Refusal(Reason.MODEL_FAILED, type(error).__name__, "compute")

    def _settle_or_refuse(
        self,
        batch: Batch,
        row: BatchRow,
        outcome: _Outcome,
        timings_ms: tuple[tuple[str, float], ...],
    ) -> Iterator[OutgoingRecord]:
        if isinstance(outcome, _Refusal):
            yield from self._refuse(batch, row, outcome, timings_ms)
            return
        try:
            settled = self._settle(batch, row, *outcome, timings_ms)
        except MessageError as error:
            refusal = _Refusal(error.reason, error.detail, "compute")
            yield from self._refuse(batch, row, refusal, timings_ms)
        except Exception as error:
            # An artifact or an escalation can be valid in every field and still not fit the
            # row: an error that left here would end the process, and the next, for ever.
            logger.exception("query %s cannot be settled", row.query_id)
            refusal = _Refusal(Reason.MODEL_FAILED, type(error).__name__, "compute")
            yield from self._refuse(batch, row, refusal, timings_ms)
        else:
            yield settled

    def _task_refusal(self, reference: TaskReference, error: TaskError) -> _Refusal:
        logger.error("task %s@%s cannot be loaded: %s", reference.name, reference.revision, error)
        return _Refusal(
            Reason.TASK_UNAVAILABLE,
            f"this worker cannot load {reference.name}@{reference.revision}: "
            f"{type(error).__name__}",
            "load",
        )

    def _settle(
        self,
        batch: Batch,
        row: BatchRow,
        task: LoadedTask,
        logits: Logits,
        timings_ms: tuple[tuple[str, float], ...],
    ) -> OutgoingRecord:
        words: list[WordToken] = []
        if task.description.kind == "tagging":
            words = self._word_finder.words(row.text, row.text_pair, _token_ids(row))
            logits = logits[np.array([word.token for word in words], dtype=np.intp)]
        output = judge(task.description, self._level, logits, row.small_output)
        onward = next_level(task.description, self._level, output, row.parameters)
        if onward is not None:
            return self._escalate(batch, row, task.description, output, onward, timings_ms)
        given = Answer()
        tags = None
        if task.description.kind == "tagging":
            tags = character_spans(words, output.scores, task.description.labels)
        else:
            given = answer(task.description, output.scores, row.parameters)
        reference = batch.tasks[row.task_index]
        result = Result(
            id=row.query_id,
            task=reference.name,
            task_revision=reference.revision,
            origin=row.origin,
            level=self._level,
            confidence=output.confidence,
            labels=given.labels,
            scores=given.scores,
            value=given.value,
            embedding=given.embedding,
            tags=tags,
            kept_tokens=len(row.token_ids) // 4,
            timings_ms=timings_ms,
            input_digest=row.input_digest,
            batch_id=batch.batch_id,
            attempt=row.attempt,
        )
        return _within(MAX_ANSWER_BYTES, self._answer_record(row, result))

    def _escalate(
        self,
        batch: Batch,
        row: BatchRow,
        task: TaskDescription,
        output: LevelOutput,
        onward: int,
        timings_ms: tuple[tuple[str, float], ...],
    ) -> OutgoingRecord:
        # The next level's tokens may be others, so it does not ensemble with scores of words: of
        # those the confidence goes along, since the message wants a number.
        carried = np.float32(output.confidence) if task.kind == "tagging" else output.scores
        escalation = Escalation(
            origin=row.origin,
            query_id=row.query_id,
            task=batch.tasks[row.task_index],
            next_level=onward,
            text=row.text,
            text_pair=row.text_pair,
            kept_words=None,
            parameters=row.parameters,
            reply=row.reply,
            original=row.original,
            input_digest=row.input_digest,
            appended_ms=row.appended_ms,
            deadline_ms=row.deadline_ms,
            timings_ms=timings_ms,
            small_output=SmallLevelOutput(
                level=self._level,
                scores=np.ascontiguousarray(carried, dtype="<f4").tobytes(),
                confidence=output.confidence,
                batch_id=batch.batch_id,
            ),
            attempt=row.attempt,
        )
        encoded = encode_escalation(escalation)
        record = OutgoingRecord(
            self._topics.escalations,
            value=encoded.value,
            key=row.reply.key,
            headers=encoded.headers,
        )
        return _within(MAX_ESCALATION_BYTES, record)

    def _refuse(
        self,
        batch: Batch,
        row: BatchRow,
        refusal: _Refusal,
        timings_ms: tuple[tuple[str, float], ...],
    ) -> Iterator[OutgoingRecord]:
        reference = batch.tasks[row.task_index]
        error = ErrorAnswer(
            id=row.query_id,
            task=reference.name,
            origin=row.origin,
            reason=refusal.reason,
            message=refusal.message,
            stage=refusal.stage,
            timings_ms=timings_ms,
            input_digest=row.input_digest,
            attempt=row.attempt,
        )
        yield self._answer_record(row, error)
        yield dead_letter(
            published_record(row.origin, row.reply.key, row.original, row.appended_ms),
            reason=refusal.reason,
            message=refusal.message,
            stage=refusal.stage,
            attempt=row.attempt,
            topic=self._topics.dead_letters,
        )

    def _answer_record(self, row: BatchRow, given: Result | ErrorAnswer) -> OutgoingRecord:
        encoded = encode_answer(given, row.reply)
        return OutgoingRecord(
            row.reply.topic or self._topics.results,
            value=encoded.value,
            key=row.reply.key,
            headers=encoded.headers,
        )


def _token_ids(row: BatchRow) -> NDArray[np.int64]:
    return np.frombuffer(row.token_ids, dtype="<u4").astype(np.int64)


_FRAMING_BYTES = 1_024
"""More than the framing of one record and its batch takes (at most 9 bytes for each header)."""


def _decoded(record: Record) -> Batch:
    """Return the batch that a record holds.

    Raises:
        MessageError: If it holds none, or the broker could not give it.
    """
    if record.corrupt is not None:
        raise MessageError(Reason.CORRUPT_RECORD, record.corrupt)
    return decode_batch(record.value)


def _within(limit: int, record: OutgoingRecord) -> OutgoingRecord:
    """Return the record if its topic takes it: the broker would refuse the whole transaction.

    Raises:
        MessageError: PAYLOAD_TOO_LARGE if it does not.
    """
    size = record.num_bytes + _FRAMING_BYTES
    if size > limit:
        raise MessageError(
            Reason.PAYLOAD_TOO_LARGE,
            f"the answer takes {size} bytes, its topic {limit}: ask for fewer labels (top_k)",
        )
    return record
