"""The errors of the wire: what can be wrong with a query, and how its answer says so."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from messages.origin import Origin

MAX_DETAIL_CHARS = 200


class Status(NamedTuple):
    """A google.rpc code, its HTTP status, and whether the same query may succeed later."""

    code: str
    http: int
    retryable: bool


class Reason(StrEnum):
    """Machine reasons: `reason` of an error answer and header `petstream-error-code`."""

    # the record's bytes
    EMPTY_PAYLOAD = "EMPTY_PAYLOAD"
    TRUNCATED = "TRUNCATED"
    TRAILING_BYTES = "TRAILING_BYTES"
    BAD_ENCODING = "BAD_ENCODING"
    NOT_A_MAP = "NOT_A_MAP"
    BAD_KEY = "BAD_KEY"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    TOO_DEEP = "TOO_DEEP"
    TOO_MANY_ITEMS = "TOO_MANY_ITEMS"
    EXT_FORBIDDEN = "EXT_FORBIDDEN"
    INVALID_UTF8 = "INVALID_UTF8"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    # its fields
    WRONG_TYPE = "WRONG_TYPE"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNKNOWN_FIELD = "UNKNOWN_FIELD"
    MISSING_FIELD = "MISSING_FIELD"
    BAD_FORMAT = "BAD_FORMAT"
    SCHEMA_UNSUPPORTED = "SCHEMA_UNSUPPORTED"
    # its envelope
    KEY_TOO_LARGE = "KEY_TOO_LARGE"
    HEADERS_TOO_LARGE = "HEADERS_TOO_LARGE"
    BAD_HEADER = "BAD_HEADER"
    CONTENT_TYPE_UNSUPPORTED = "CONTENT_TYPE_UNSUPPORTED"
    REPLY_TOPIC_DENIED = "REPLY_TOPIC_DENIED"
    # its meaning
    TASK_UNKNOWN = "TASK_UNKNOWN"
    TASK_RETIRED = "TASK_RETIRED"
    LEVEL_UNAVAILABLE = "LEVEL_UNAVAILABLE"
    EMPTY_TEXT = "EMPTY_TEXT"
    TEXT_TOO_LONG = "TEXT_TOO_LONG"
    TEXT_PAIR_UNEXPECTED = "TEXT_PAIR_UNEXPECTED"
    DEADLINE_PAST = "DEADLINE_PAST"
    # ours, not the caller's
    TASK_UNAVAILABLE = "TASK_UNAVAILABLE"
    NAN_OUTPUT = "NAN_OUTPUT"
    MODEL_FAILED = "MODEL_FAILED"
    INVALID_BATCH = "INVALID_BATCH"
    CORRUPT_RECORD = "CORRUPT_RECORD"
    UNRECOGNISED = "UNRECOGNISED"
    """Only in a reader: the answer's reason is newer than the reader."""


_INVALID = Status("INVALID_ARGUMENT", 400, retryable=False)
_INTERNAL = Status("INTERNAL", 500, retryable=False)

_STATUSES = {
    Reason.EMPTY_PAYLOAD: _INVALID,
    Reason.TRUNCATED: _INVALID,
    Reason.TRAILING_BYTES: _INVALID,
    Reason.BAD_ENCODING: _INVALID,
    Reason.NOT_A_MAP: _INVALID,
    Reason.BAD_KEY: _INVALID,
    Reason.DUPLICATE_KEY: _INVALID,
    Reason.TOO_DEEP: _INVALID,
    Reason.TOO_MANY_ITEMS: _INVALID,
    Reason.EXT_FORBIDDEN: _INVALID,
    Reason.INVALID_UTF8: _INVALID,
    Reason.PAYLOAD_TOO_LARGE: _INVALID,
    Reason.WRONG_TYPE: _INVALID,
    Reason.OUT_OF_RANGE: Status("OUT_OF_RANGE", 400, retryable=False),
    Reason.UNKNOWN_FIELD: _INVALID,
    Reason.MISSING_FIELD: _INVALID,
    Reason.BAD_FORMAT: _INVALID,
    Reason.SCHEMA_UNSUPPORTED: Status("UNIMPLEMENTED", 501, retryable=False),
    Reason.KEY_TOO_LARGE: _INVALID,
    Reason.HEADERS_TOO_LARGE: _INVALID,
    Reason.BAD_HEADER: _INVALID,
    Reason.CONTENT_TYPE_UNSUPPORTED: _INVALID,
    Reason.REPLY_TOPIC_DENIED: Status("PERMISSION_DENIED", 403, retryable=False),
    Reason.TASK_UNKNOWN: Status("NOT_FOUND", 404, retryable=False),
    Reason.TASK_RETIRED: Status("FAILED_PRECONDITION", 400, retryable=False),
    Reason.LEVEL_UNAVAILABLE: Status("FAILED_PRECONDITION", 400, retryable=False),
    Reason.EMPTY_TEXT: _INVALID,
    Reason.TEXT_TOO_LONG: _INVALID,
    Reason.TEXT_PAIR_UNEXPECTED: _INVALID,
    Reason.DEADLINE_PAST: Status("DEADLINE_EXCEEDED", 504, retryable=True),
    Reason.TASK_UNAVAILABLE: Status("UNAVAILABLE", 503, retryable=True),
    Reason.NAN_OUTPUT: _INTERNAL,
    Reason.MODEL_FAILED: _INTERNAL,
    Reason.INVALID_BATCH: Status("INTERNAL", 500, retryable=True),
    Reason.CORRUPT_RECORD: Status("DATA_LOSS", 500, retryable=True),
    Reason.UNRECOGNISED: Status("UNKNOWN", 500, retryable=False),
}


def status_of(reason: Reason) -> Status:
    """The google.rpc code, HTTP status and retryability that belong to `reason`."""
    return _STATUSES[reason]


class MessageError(ValueError):
    """Bytes or fields that are not a valid message; the only error that decoding raises.

    `detail` is at most 200 characters and never repeats the input: it may go into logs, headers
    and answers.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = detail[:MAX_DETAIL_CHARS]
        super().__init__(f"{reason.value}: {self.detail}")


class SchemaUnsupported(MessageError):
    """A message that says it is of another major version, whatever else is in it."""

    def __init__(self, version: str, detail: str) -> None:
        super().__init__(Reason.SCHEMA_UNSUPPORTED, detail)
        self.version = version


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """The terminal record of a query that has no result."""

    id: str
    task: str
    origin: Origin
    reason: Reason
    message: str
    """What was wrong and what to do; at most 200 characters."""
    stage: str
    """Where it was found: `decode`, `validate`, `tokenise`, `schedule`, `load`, `compute`."""
    timings_ms: tuple[tuple[str, float], ...] = ()
    input_digest: bytes = b""
    attempt: int = 1
