"""Macro-batches to bytes and back, made for thousands of rows: one MessagePack map each."""

from collections.abc import Sequence
from typing import Any

from messages.batch import Batch, BatchRow
from messages.batch_schema import BatchFields
from messages.carried import parameters_to_wire, reference_to_wire
from messages.encoded_message import EncodedMessage
from messages.errors import MessageError, Reason
from messages.escalation import SmallLevelOutput
from messages.headers import CONTENT_TYPE, KIND, MSGPACK
from messages.limits import MAX_ARRAY_ITEMS, MAX_BATCH_BYTES
from messages.origin import Origin
from messages.original_record import OriginalRecord
from messages.query import NO_PARAMETERS, QueryParameters
from messages.reply import ReplyAddress
from messages.schema import VERSION, check_payload, validate, validate_message
from messages.strict_msgpack import pack, read_msgpack
from messages.task_event import TaskReference

_HEADERS = ((CONTENT_TYPE, MSGPACK.encode()), (KIND, b"batch"))


def encode_batch(batch: Batch) -> EncodedMessage:
    """The value and headers of a batch's record.

    Raises:
        MessageError: `decode_batch` would refuse it, for the same reason.
    """
    sources: dict[Any, int] = {}
    parameters: dict[Any, int] = {}
    styles: dict[Any, int] = {}
    originals: dict[Any, int] = {}
    hops: dict[Any, int] = {}
    small_runs: dict[Any, int] = {}
    rows = []
    for row in batch.rows:
        origin, reply, small = row.origin, row.reply, row.small_output
        source = (origin.topic, origin.topic_id, origin.partition)
        wished = parameters_to_wire(row.parameters)
        header_names, header_values = _unzip(reply.headers)
        style = (reply.encoding, reply.envelope, reply.topic, header_names)
        original_names, original_values = _unzip(row.original.headers)
        hop_names, hop_times = _unzip(row.timings_ms)
        if small is not None:
            run = small_runs.setdefault((small.level, small.batch_id), len(small_runs))
        rows.append(
            (
                sources.setdefault(source, len(sources)),
                origin.offset,
                row.query_id,
                row.task_index,
                row.token_ids,
                row.text,
                row.text_pair,
                None if wished is None else parameters.setdefault(wished, len(parameters)),
                reply.key,
                styles.setdefault(style, len(styles)),
                header_values,
                (
                    row.original.value,
                    originals.setdefault(original_names, len(originals)),
                    original_values,
                ),
                row.input_digest,
                row.appended_ms,
                row.deadline_ms,
                hops.setdefault(hop_names, len(hops)),
                hop_times,
                None if small is None else (run, small.scores, small.confidence),
                row.attempt,
            )
        )
    fields = {
        "batch_id": batch.batch_id,
        "level": batch.level,
        "backbone": batch.backbone,
        "policy": batch.policy,
        "created_ms": batch.created_ms,
        "tasks": tuple(reference_to_wire(task) for task in batch.tasks),
        "sources": tuple(sources),
        "parameters": tuple(parameters),
        "styles": tuple(styles),
        "originals": tuple(originals),
        "hops": tuple(hops),
        "small_runs": tuple(small_runs),
        "rows": tuple(rows),
    }
    validate(BatchFields, fields)
    _check_rows(batch.rows, len(batch.tasks))
    value = pack({"v": VERSION, **fields})
    return EncodedMessage(check_payload(value, MAX_BATCH_BYTES), _HEADERS)


def decode_batch(value: bytes | None) -> Batch:
    """The batch that a record's value holds.

    Raises:
        MessageError: It does not hold one, or its rows contradict each other.
    """
    tree = read_msgpack(
        check_payload(value, MAX_BATCH_BYTES), max_array_items=MAX_ARRAY_ITEMS, arrays_as=tuple
    )
    fields = validate_message(BatchFields, tree)
    try:
        rows = _rows(fields)
    except IndexError as error:
        raise MessageError(Reason.INVALID_BATCH, "a row refers to what is not there") from error
    _check_rows(rows, len(fields.tasks))
    return Batch(
        batch_id=fields.batch_id,
        level=fields.level,
        backbone=fields.backbone,
        policy=fields.policy,
        created_ms=fields.created_ms,
        tasks=tuple(TaskReference(*task) for task in fields.tasks),
        rows=rows,
    )


def _rows(fields: BatchFields) -> tuple[BatchRow, ...]:
    sources, styles, hops = fields.sources, fields.styles, fields.hops
    all_parameters = [QueryParameters(*parameters) for parameters in fields.parameters]
    rows = []
    for (
        source,
        offset,
        query_id,
        task_index,
        token_ids,
        text,
        text_pair,
        wished,
        key,
        style,
        header_values,
        (original_value, original, original_values),
        digest,
        appended_ms,
        deadline_ms,
        hop,
        hop_times,
        small,
        attempt,
    ) in fields.rows:
        encoding, envelope, topic, header_names = styles[style]
        original_names = fields.originals[original]
        hop_names = hops[hop]
        if (
            len(header_names) != len(header_values)
            or len(original_names) != len(original_values)
            or len(hop_names) != len(hop_times)
        ):
            raise MessageError(Reason.INVALID_BATCH, "a row has not as many values as names")
        small_output = None
        if small is not None:
            run, scores, confidence = small
            level, batch_id = fields.small_runs[run]
            small_output = SmallLevelOutput(level, scores, confidence, batch_id)
        rows.append(
            BatchRow(
                Origin(*sources[source], offset),
                query_id,
                task_index,
                token_ids,
                text,
                text_pair,
                NO_PARAMETERS if wished is None else all_parameters[wished],
                ReplyAddress(
                    key,
                    encoding,
                    envelope,
                    tuple(zip(header_names, header_values, strict=True)),
                    topic,
                ),
                OriginalRecord(
                    original_value, tuple(zip(original_names, original_values, strict=True))
                ),
                digest,
                appended_ms,
                deadline_ms,
                tuple(zip(hop_names, hop_times, strict=True)),
                small_output,
                attempt,
            )
        )
    return tuple(rows)


def _check_rows(rows: Sequence[BatchRow], num_tasks: int) -> None:
    if len({row.origin for row in rows}) != len(rows):
        raise MessageError(Reason.INVALID_BATCH, "two rows have one origin")
    finished = set()
    current = None
    for row in rows:
        if len(row.token_ids) % 4:
            raise MessageError(Reason.INVALID_BATCH, "token ids are not uint32")
        if row.small_output is not None and len(row.small_output.scores) % 4:
            raise MessageError(Reason.INVALID_BATCH, "scores are not float32")
        if row.task_index != current:
            if row.task_index >= num_tasks:
                raise MessageError(Reason.INVALID_BATCH, "a row refers to what is not there")
            if row.task_index in finished:
                raise MessageError(Reason.INVALID_BATCH, "rows of a task do not stand together")
            finished.add(row.task_index)
            current = row.task_index


def _unzip(pairs: Sequence[tuple[str, Any]]) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    if not pairs:
        return (), ()
    names, values = zip(*pairs, strict=True)
    return names, values
