"""Every reason that the service can give is an exception that says what to do."""

import pytest

from messages.errors import Reason
from producers.errors import (
    ClientError,
    QueryInvalid,
    ServiceFailed,
    ServiceUnavailable,
    TaskError,
    TaskNotFound,
    task_error,
)
from producers.ticket import Ticket
from tests.producers.answers import ask, at, error_for


def error_of(reason: Reason) -> TaskError:
    """The exception for an answer with `reason`."""
    return task_error(error_for(Ticket(ask(), b""), at(0), reason))


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_an_exception_that_keeps_the_answer(reason: Reason) -> None:
    """Nothing is lost on the way into the exception."""
    error = error_of(reason)

    assert isinstance(error, ClientError)
    assert error.answer.reason is error.reason is reason
    assert reason.value in str(error)


@pytest.mark.parametrize("reason", list(Reason))
def test_what_the_caller_must_change_is_never_retryable(reason: Reason) -> None:
    """Asking again, unchanged, would only repeat it."""
    error = error_of(reason)

    if isinstance(error, QueryInvalid | TaskNotFound):
        assert not error.retryable
    if isinstance(error, ServiceUnavailable):
        assert error.retryable


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Reason.TASK_RETIRED, TaskNotFound),
        (Reason.LEVEL_UNAVAILABLE, QueryInvalid),
        (Reason.SCHEMA_UNSUPPORTED, QueryInvalid),
        (Reason.REPLY_TOPIC_DENIED, QueryInvalid),
        (Reason.TASK_UNAVAILABLE, ServiceUnavailable),
        (Reason.NAN_OUTPUT, ServiceFailed),
        (Reason.CORRUPT_RECORD, ServiceFailed),
    ],
)
def test_kinds(reason: Reason, kind: type[TaskError]) -> None:
    """The less obvious ones."""
    assert type(error_of(reason)) is kind
