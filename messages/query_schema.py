"""The fields of a query's value, as pydantic checks them at the edge."""

from typing import Annotated, Any

from pydantic import Field

from messages.errors import MessageError, Reason
from messages.limits import MAX_TEXT_CHARS, MAX_TTL_MS
from messages.query import NO_PARAMETERS, Query, QueryParameters
from messages.schema import (
    EpochMs,
    Level,
    Probability,
    QueryId,
    TaskTag,
    WireModel,
    inherent_fault,
    validate,
)


class ParameterFields(WireModel):
    """`parameters` of a query; see `QueryParameters`."""

    accuracy_target: Annotated[float, Field(gt=0, le=1)] | None = None
    latency_slo_ms: Annotated[float, Field(gt=0, le=MAX_TTL_MS)] | None = None
    level: Level | None = None
    min_confidence: Probability | None = None
    top_k: Annotated[int, Field(ge=1, le=1_024)] | None = None
    priority: Annotated[int, Field(ge=1, le=9)] | None = None


class QueryFields(WireModel):
    """A query's value without `v`. A pair of texts may also come as `text: [text, text_pair]`."""

    id: QueryId
    task: TaskTag
    text: str
    text_pair: str | None = None
    parameters: ParameterFields | None = None
    ttl_ms: Annotated[int, Field(ge=1, le=MAX_TTL_MS)] | None = None
    expires_at_ms: EpochMs | None = None


def check_query(fields: dict[str, Any], *, may_hold_unknown: bool = False) -> QueryFields:
    """`fields`, if they describe a query.

    Args:
        fields: A query's value without `v`. Changed in place.
        may_hold_unknown: Unknown fields are ignored: the query is of a later minor version.

    Raises:
        MessageError: They do not describe one.
    """
    if type(fields.get("text")) is list:
        _split_pair(fields)
    checked = validate(QueryFields, fields, may_hold_unknown=may_hold_unknown)
    _check_text("text", checked.text)
    if checked.text_pair is not None:
        _check_text("text_pair", checked.text_pair)
    return checked


def validate_query(fields: dict[str, Any], *, may_hold_unknown: bool) -> Query:
    """The query that `fields` describe; arguments and errors as of `check_query`."""
    checked = check_query(fields, may_hold_unknown=may_hold_unknown)
    return Query(
        checked.id,
        checked.task,
        checked.text,
        checked.text_pair,
        _parameters(checked.parameters),
        checked.ttl_ms,
        checked.expires_at_ms,
    )


def _split_pair(fields: dict[str, Any]) -> None:
    texts = fields["text"]
    if len(texts) != 2 or texts[1] is None or "text_pair" in fields:
        raise inherent_fault(fields) or MessageError(
            Reason.WRONG_TYPE, "text must be a string, or an array of two strings"
        )
    fields["text"], fields["text_pair"] = texts


def _check_text(name: str, text: str) -> None:
    if len(text) > MAX_TEXT_CHARS:
        raise MessageError(
            Reason.TEXT_TOO_LONG, f"{name} has {len(text)} characters, at most {MAX_TEXT_CHARS}"
        )
    if not text or text.isspace():
        raise MessageError(Reason.EMPTY_TEXT, f"{name} is empty")


def _parameters(fields: ParameterFields | None) -> QueryParameters:
    if fields is None:
        return NO_PARAMETERS
    return QueryParameters(
        fields.accuracy_target,
        fields.latency_slo_ms,
        fields.level,
        fields.min_confidence,
        fields.top_k,
        fields.priority,
    )
