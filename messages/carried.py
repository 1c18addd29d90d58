"""The wire form of what travels with a query through every hop, for batches and escalations."""

from typing import Annotated

from pydantic import Field

from messages.digest import DIGEST_BYTES
from messages.limits import (
    MAX_ARRAY_ITEMS,
    MAX_HEADERS,
    MAX_HEADERS_BYTES,
    MAX_KEY_BYTES,
    MAX_QUERY_BYTES,
    MAX_TEXT_CHARS,
    MAX_TTL_MS,
)
from messages.origin import Origin
from messages.query import NO_PARAMETERS, QueryParameters
from messages.reply import CallerEnvelope, Encoding
from messages.schema import (
    Digest,
    Level,
    Name,
    Offset,
    Partition,
    Probability,
    Revision,
    TaskName,
    TopicId,
    TopicName,
)
from messages.task_event import TaskReference

MAX_ECHOED = 2 * MAX_HEADERS
"""A structured CloudEvent's attributes come on top of its record's headers."""

Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
InputDigest = Annotated[bytes, Field(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Key = Annotated[bytes, Field(max_length=MAX_KEY_BYTES)]
HeaderName = Annotated[str, Field(max_length=256)]
HeaderValue = Annotated[bytes, Field(max_length=MAX_HEADERS_BYTES)]
HeaderNames = Annotated[tuple[HeaderName, ...], Field(max_length=MAX_ECHOED)]
HeaderValues = Annotated[tuple[HeaderValue, ...], Field(max_length=MAX_ECHOED)]
OriginalValue = Annotated[bytes, Field(max_length=MAX_QUERY_BYTES)]
OriginalHeaderName = Annotated[str, Field(max_length=MAX_HEADERS_BYTES)]
OriginalHeaderNames = Annotated[tuple[OriginalHeaderName, ...], Field(max_length=MAX_HEADERS)]
OriginalHeaderValues = Annotated[tuple[HeaderValue | None, ...], Field(max_length=MAX_HEADERS)]
Scores = Annotated[bytes, Field(max_length=4 * MAX_ARRAY_ITEMS)]
"""Empty where the next level takes nothing over, as in tagging."""

OriginFields = tuple[TopicName, TopicId, Partition, Offset]
ReferenceFields = tuple[TaskName, Revision, Digest]
ParameterTuple = tuple[
    Annotated[float, Field(gt=0, le=1)] | None,
    Annotated[float, Field(gt=0, le=MAX_TTL_MS)] | None,
    Level | None,
    Probability | None,
    Annotated[int, Field(ge=1, le=1_024)] | None,
    Annotated[int, Field(ge=1, le=9)] | None,
]
"""The fields of `QueryParameters` in their order."""
ReplyStyle = tuple[Encoding, CallerEnvelope, TopicName | None, HeaderNames]
"""What the answers of one client have in common."""
HopNames = Annotated[tuple[Name, ...], Field(max_length=32)]
HopTimes = Annotated[tuple[float, ...], Field(max_length=32)]
"""Milliseconds; below zero where two machines' clocks differ."""


def parameters_to_wire(
    parameters: QueryParameters,
) -> tuple[float | None, float | None, int | None, float | None, int | None, int | None] | None:
    """The fields of `parameters` in their order; None for the defaults."""
    if parameters is NO_PARAMETERS or parameters == NO_PARAMETERS:
        return None
    return (
        parameters.accuracy_target,
        parameters.latency_slo_ms,
        parameters.level,
        parameters.min_confidence,
        parameters.top_k,
        parameters.priority,
    )


def origin_to_wire(origin: Origin) -> tuple[str, str, int, int]:
    """The fields of `origin` in their order."""
    return (origin.topic, origin.topic_id, origin.partition, origin.offset)


def reference_to_wire(task: TaskReference) -> tuple[str, int, str]:
    """The fields of `task` in their order."""
    return (task.name, task.revision, task.digest)
