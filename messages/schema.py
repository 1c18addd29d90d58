"""What the schemas of all messages share: versions, formats, and pydantic's errors as ours.

Version and evolution. Every message carries `v`, `<major>.<minor>`. A reader accepts its own major
and refuses any other with `SCHEMA_UNSUPPORTED`. Within a major, fields may be added if they are
optional and may be ignored without making an answer wrong; that raises the minor. Nothing is
removed, renamed or given another meaning, and arrays that stand for records keep their length: a
new fact of a batch's rows is a new field with one item per row. A reader refuses unknown fields in
a message of a minor that it knows, and ignores them in one of a later minor.
"""

import re
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from messages.errors import MessageError, Reason, SchemaUnsupported
from messages.limits import MAX_ATTEMPT, MAX_DEPTH, MAX_EPOCH_MS, MAX_LEVEL
from messages.strict_msgpack import is_timestamp

MAJOR = 1
MINOR = 0
VERSION = f"{MAJOR}.{MINOR}"

# Rust's regular expressions, where \z is the end of the text; Python's \Z.
_TASK_NAME = "[a-z0-9][a-z0-9._-]{0,63}"
_TASK_TAG = f"{_TASK_NAME}(?:@[1-9][0-9]{{0,8}}|:{_TASK_NAME})?"
_QUERY_ID = "[!-~]{1,64}"

QueryId = Annotated[str, StringConstraints(pattern=rf"\A{_QUERY_ID}\z")]
TaskName = Annotated[str, StringConstraints(pattern=rf"\A{_TASK_NAME}\z")]
TaskTag = Annotated[str, StringConstraints(pattern=rf"\A{_TASK_TAG}\z")]
"""`name`, `name@revision` or `name:alias`."""
TopicName = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9._-]{1,249}\z")]
TopicId = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9_-]{0,22}\z")]
Name = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._/+-]{0,127}\z")]
"""Of a backbone, a policy, a kind of PET, a hop, a stage, a batch."""
Digest = Annotated[str, StringConstraints(pattern=r"\Asha256:[0-9a-f]{64}\z")]

Partition = Annotated[int, Field(ge=0, le=2**31 - 1)]
Offset = Annotated[int, Field(ge=0, le=2**63 - 1)]
Revision = Annotated[int, Field(ge=1, le=999_999_999)]
Level = Annotated[int, Field(ge=0, le=MAX_LEVEL)]
Attempt = Annotated[int, Field(ge=1, le=MAX_ATTEMPT)]
EpochMs = Annotated[int, Field(ge=-MAX_EPOCH_MS, le=MAX_EPOCH_MS)]
Probability = Annotated[float, Field(ge=0, le=1)]
Confidence = Annotated[float, Field(ge=0, le=1.000_001)]
"""A computed probability: a softmax in float32 may round to just above 1."""

_FORMS = {
    rf"\A{_QUERY_ID}\z": "must be 1 to 64 printable ASCII characters without spaces",
    rf"\A{_TASK_NAME}\z": "must be 1 to 64 of a-z 0-9 . _ -",
    rf"\A{_TASK_TAG}\z": "must be name, name@revision or name:alias, in a-z 0-9 . _ -",
}
_VERSION_FORM = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")
_ID_FORM = re.compile(_QUERY_ID)
_TAG_FORM = re.compile(_TASK_TAG)


class WireModel(BaseModel):
    """Base of the schemas: strict types, no unknown fields, finite numbers."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


Model = TypeVar("Model", bound=WireModel)


def is_query_id(text: str) -> bool:
    """Whether `text` may be the id of a query."""
    return _ID_FORM.fullmatch(text) is not None


def is_task_tag(text: str) -> bool:
    """Whether `text` may name a task, a revision or an alias of one."""
    return _TAG_FORM.fullmatch(text) is not None


def check_payload(value: bytes | None, max_bytes: int) -> bytes:
    """`value`, which is there and not too large.

    Raises:
        MessageError: It is missing or empty, or has more than `max_bytes`.
    """
    if not value:
        raise MessageError(Reason.EMPTY_PAYLOAD, "the record has no value")
    if len(value) > max_bytes:
        raise MessageError(Reason.PAYLOAD_TOO_LARGE, f"more than {max_bytes} bytes")
    return value


def check_version(version: object) -> bool:
    """Whether a message of `version` may hold fields that this reader does not know.

    Raises:
        SchemaUnsupported: `version` is of another major.
        MessageError: `version` is malformed, or missing.
    """
    if version == VERSION:
        return False
    if version is None:
        raise MessageError(Reason.SCHEMA_UNSUPPORTED, "the message has no version v")
    if not isinstance(version, str):
        raise MessageError(Reason.WRONG_TYPE, "v must be a string such as 1.0")
    match = _VERSION_FORM.fullmatch(version)
    if match is None:
        raise MessageError(Reason.BAD_FORMAT, "v must look like 1.0")
    if int(match[1]) != MAJOR:
        raise SchemaUnsupported(version, f"this service reads version {MAJOR}.x")
    return int(match[2]) > MINOR


def validate(
    model: type[Model], fields: dict[str, Any], *, may_hold_unknown: bool = False
) -> Model:
    """`fields` as a `model`.

    Args:
        model: The schema.
        fields: A tree of plain values.
        may_hold_unknown: Unknown fields are ignored, on every level: the message is of a later
            minor version.

    Raises:
        MessageError: They are not; the reason is that of the first fault.
    """
    try:
        if not may_hold_unknown:
            return model.model_validate(fields)
        checked = model.model_validate(fields, extra="ignore")
    except ValidationError as error:
        raise _as_message_error(model, fields, error) from error
    fault = inherent_fault(fields)  # what the schema does not look at still keeps the limits
    if fault is not None:
        raise fault
    return checked


def validate_message(model: type[Model], fields: dict[str, Any]) -> Model:
    """As `validate`, for a map that carries `v`, which is taken out.

    Raises:
        MessageError: The version or a field is not acceptable.
    """
    may_hold_unknown = check_version(fields.pop("v", None))
    return validate(model, fields, may_hold_unknown=may_hold_unknown)


_REASONS = {
    "missing": Reason.MISSING_FIELD,
    "extra_forbidden": Reason.UNKNOWN_FIELD,
    "string_pattern_mismatch": Reason.BAD_FORMAT,
    "string_unicode": Reason.INVALID_UTF8,
    "string_too_long": Reason.OUT_OF_RANGE,
    "string_too_short": Reason.OUT_OF_RANGE,
    "bytes_too_long": Reason.OUT_OF_RANGE,
    "bytes_too_short": Reason.OUT_OF_RANGE,
    "too_long": Reason.OUT_OF_RANGE,
    "too_short": Reason.OUT_OF_RANGE,
    "greater_than": Reason.OUT_OF_RANGE,
    "greater_than_equal": Reason.OUT_OF_RANGE,
    "less_than": Reason.OUT_OF_RANGE,
    "less_than_equal": Reason.OUT_OF_RANGE,
    "finite_number": Reason.OUT_OF_RANGE,
    "literal_error": Reason.OUT_OF_RANGE,
}


def _as_message_error(
    model: type[WireModel], fields: dict[str, Any], error: ValidationError
) -> MessageError:
    inherent = inherent_fault(fields)
    if inherent is not None:
        return inherent
    first = error.errors(include_url=False, include_input=False)[0]
    reason = _REASONS.get(first["type"], Reason.WRONG_TYPE)
    place = [str(part) for part in first["loc"]]
    if reason is Reason.UNKNOWN_FIELD:  # the last part of the place is the caller's own word
        known = "" if place[1:] else f"; known are {', '.join(model.model_fields)}"
        return MessageError(reason, f"{'.'.join(place[:-1]) or 'message'}: unknown field{known}")
    name = ".".join(place)
    if not name.isprintable():  # a key of a map whose keys are free
        name = place[0]
    form = _FORMS.get(first.get("ctx", {}).get("pattern", ""))
    return MessageError(reason, f"{name}: {form or first['msg']}")


def inherent_fault(tree: object) -> MessageError | None:
    """The fault that makes a tree unacceptable whatever the schema says, if there is one."""
    level: list[object] = [tree]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for value in level:
            if is_timestamp(value):
                return MessageError(Reason.EXT_FORBIDDEN, "timestamps are not accepted")
            if isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list | tuple):
                below.extend(value)
        level = below
    if any(isinstance(value, dict | list | tuple) for value in level):
        return MessageError(Reason.TOO_DEEP, f"nested deeper than {MAX_DEPTH}")
    return None
