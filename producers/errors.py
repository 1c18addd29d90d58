"""What a client can run into.

ClientError
├── ClientClosed                the client was closed while the call waited
├── ConnectionFailed            no broker, or the topics are not there
├── ClientBusy                  too much under way, nothing was sent (also a TimeoutError)
├── PublishError                the query is not known to be in the query topic
│   ├── PublishRejected         it certainly is not: too large, not allowed, queue full
│   └── PublishDoubtful         it may be: the acknowledgement never came
├── AnswersLost                 answers were deleted before this client read them
├── AnswerTimeout               published, no answer in time (also a TimeoutError)
├── AnswerUnreadable            an answer came that is none of the wire contract
├── AnswerMismatch              the answer is to another text than the one that was asked
└── TaskError                   the service answered with an error; `answer` holds it
    ├── QueryInvalid            the query itself must change
    ├── TaskNotFound            no such task, revision or alias, or it has been retired
    ├── DeadlinePast            the query expired before it was computed
    ├── ServiceUnavailable      the service cannot answer now; ask again later
    └── ServiceFailed           everything else: the fault is the service's
"""

from messages.errors import ErrorAnswer, Reason, status_of
from messages.origin import Origin


class ClientError(Exception):
    """Anything that keeps a query from its result."""


class ClientClosed(ClientError):
    """The client was closed while the call waited."""


class ConnectionFailed(ClientError):
    """No broker answers, or the namespace has no topics."""


class ClientBusy(ClientError, TimeoutError):
    """No room for another query came free in time; nothing was sent."""


class PublishError(ClientError):
    """The query is not known to be in the query topic."""


class PublishRejected(PublishError):
    """The query is certainly not in the query topic; it may be sent again."""


class PublishDoubtful(PublishError):
    """The query may be in the query topic; sent again, it may be answered twice."""


class AnswersLost(ClientError):
    """Retention deleted records of the results topic before this client read them."""


class AnswerTimeout(ClientError, TimeoutError):
    """No answer came in time. The query stays in the topic and is still answered there.

    `origin` is None where the broker had not acknowledged the query either.
    """

    def __init__(self, query_id: str, origin: Origin | None) -> None:
        where = f"published at {origin}" if origin else "not yet acknowledged by the broker"
        super().__init__(f"no answer in time to query {query_id}, {where}")
        self.query_id = query_id
        self.origin = origin


class AnswerUnreadable(ClientError):
    """The answer's record cannot be decoded."""


class AnswerMismatch(ClientError):
    """The answer's input digest is not that of the text that was asked."""


class TaskError(ClientError):
    """The service answered with an error."""

    def __init__(self, answer: ErrorAnswer) -> None:
        super().__init__(f"{answer.reason.value}: {answer.message}")
        self.answer = answer
        self.reason: Reason = answer.reason
        self.status = status_of(answer.reason)

    @property
    def retryable(self) -> bool:
        """Whether the same query may succeed later."""
        return self.status.retryable


class QueryInvalid(TaskError):
    """The query itself must change."""


class TaskNotFound(TaskError):
    """No such task, revision or alias, or it has been retired."""


class DeadlinePast(TaskError):
    """The query expired before it was computed."""


class ServiceUnavailable(TaskError):
    """The service cannot answer now."""


class ServiceFailed(TaskError):
    """The service failed on this query."""


_BY_CODE: dict[str, type[TaskError]] = {
    "INVALID_ARGUMENT": QueryInvalid,
    "OUT_OF_RANGE": QueryInvalid,
    "PERMISSION_DENIED": QueryInvalid,
    "UNIMPLEMENTED": QueryInvalid,
    "FAILED_PRECONDITION": QueryInvalid,
    "NOT_FOUND": TaskNotFound,
    "DEADLINE_EXCEEDED": DeadlinePast,
    "UNAVAILABLE": ServiceUnavailable,
    "RESOURCE_EXHAUSTED": ServiceUnavailable,
}


def task_error(answer: ErrorAnswer) -> TaskError:
    """Return the exception that says what `answer` says."""
    if answer.reason is Reason.TASK_RETIRED:
        return TaskNotFound(answer)
    return _BY_CODE.get(status_of(answer.reason).code, ServiceFailed)(answer)
