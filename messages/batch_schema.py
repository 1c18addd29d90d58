"""The fields of a batch's value, as pydantic checks them.

What rows have in common stands once, in tables; a row is an array that refers to them by index:

    sources     [topic, topic id, partition]
    parameters  the six of `QueryParameters`
    styles      [encoding, envelope, reply topic, [names of the echoed headers]]
    originals   [names of the headers of the queries' records]
    hops        [names of the hops in `timings_ms`]
    small_runs  [level, batch id] of the small level's outputs
"""

from typing import Annotated

from pydantic import Field

from messages.carried import (
    HeaderValues,
    HopNames,
    HopTimes,
    InputDigest,
    Key,
    OriginalHeaderNames,
    OriginalHeaderValues,
    OriginalValue,
    ParameterTuple,
    ReferenceFields,
    ReplyStyle,
    Scores,
    Text,
)
from messages.limits import MAX_ARRAY_ITEMS, MAX_TOKENS
from messages.schema import (
    Attempt,
    Confidence,
    EpochMs,
    Level,
    Name,
    Offset,
    Partition,
    QueryId,
    TopicId,
    TopicName,
    WireModel,
)

Index = Annotated[int, Field(ge=0, lt=MAX_ARRAY_ITEMS)]
RowFields = tuple[
    Index,  # source
    Offset,
    QueryId,
    Index,  # task
    Annotated[bytes, Field(min_length=4, max_length=4 * MAX_TOKENS)],  # token ids
    Text,
    Text | None,  # text pair
    Index | None,  # parameters
    Key | None,
    Index,  # style
    HeaderValues,
    tuple[OriginalValue, Index, OriginalHeaderValues],  # value, original, header values
    InputDigest,
    EpochMs,  # appended
    EpochMs | None,  # deadline
    Index,  # hops
    HopTimes,
    tuple[Index, Scores, Confidence] | None,  # small run, scores, confidence
    Attempt,
]


class BatchFields(WireModel):
    """A batch's value without `v`."""

    batch_id: Name
    level: Level
    backbone: Name
    policy: Name
    created_ms: EpochMs
    tasks: Annotated[tuple[ReferenceFields, ...], Field(max_length=MAX_ARRAY_ITEMS)]
    sources: tuple[tuple[TopicName, TopicId, Partition], ...]
    parameters: tuple[ParameterTuple, ...]
    styles: tuple[ReplyStyle, ...]
    originals: tuple[OriginalHeaderNames, ...]
    hops: tuple[HopNames, ...]
    small_runs: tuple[tuple[Level, Name], ...]
    rows: Annotated[tuple[RowFields, ...], Field(min_length=1, max_length=MAX_ARRAY_ITEMS)]
