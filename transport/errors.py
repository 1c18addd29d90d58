"""The errors of the transport: each message is one line that says what to do.

TransportError
├── ConfigKeyForbidden      a client setting that is not on the allow-list
├── BrokerUnreachable       nobody answers at the bootstrap servers, or refuses us
├── TopicConfigError        a topic is missing or not as the specification wants it
├── TableFollowerFailed     the follower of a compacted topic stopped
├── StageFailed             the stage raised: a bug, the process ends without committing
├── VersionMismatch         a record of our own that another major version wrote, likewise
├── WindowSkippedRecords    a window broke its contract: a bug, likewise
└── SessionError
    ├── StaleAssignment     a claim on a partition that moved on: drop the work
    ├── TransactionAborted  nothing was published: publish again while the claims hold
    ├── TooManyAborts       give up and let the supervisor start the process anew
    ├── SessionFenced       another live process has the same transactional id
    ├── AccessDenied        the broker's access rules forbid what the session has to do
    ├── OutcomeUnknown      a transaction can be neither committed nor ruled out
    ├── RecordTooLarge      a record that no retry will make smaller
    └── DataLossDetected    records were deleted before they were read
"""

from messages.origin import Origin
from transport.records import Partition


class TransportError(Exception):
    """Whatever the transport raises."""


class ConfigKeyForbidden(TransportError):
    """A client setting that could load code, weaken security or break delivery."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"client setting {key!r} is not allowed: {why}; remove it")
        self.key = key


class BrokerUnreachable(TransportError):
    """The brokers do not answer, or refuse this client."""

    def __init__(self, bootstrap_servers: str, what: str) -> None:
        super().__init__(
            f"no Kafka broker at {bootstrap_servers}: {what}; check that it runs "
            "(petstream broker status) and KAFKA_BOOTSTRAP_SERVERS"
        )


class TopicConfigError(TransportError):
    """A topic that is missing or differs from its specification."""

    def __init__(self, topic: str, key: str, wanted: str, found: str) -> None:
        super().__init__(
            f"topic {topic}: {key} is {found}, wanted {wanted}; "
            "run petstream topics create, or correct it with kafka-configs"
        )
        self.topic = topic
        self.key = key
        self.wanted = wanted
        self.found = found


class TableFollowerFailed(TransportError):
    """The thread that follows a compacted topic ended with an error."""


class StageFailed(TransportError):
    """The stage raised on these records; none of them is committed."""


class VersionMismatch(TransportError):
    """A batch or an escalation that this process cannot read, and another version can.

    It is neither answered nor set aside: the process ends, and a process of that version, or of
    one that reads it, takes it up.
    """

    def __init__(self, source: Partition, offset: int, version: str) -> None:
        super().__init__(
            f"record {source}/{offset} was written by version {version}, which this process does "
            "not read; upgrade this process, or have the older records worked off first; nothing "
            "of it is committed"
        )
        self.version = version


class WindowSkippedRecords(TransportError):
    """A window took records of a partition out of order, so no offset could settle them."""


class SessionError(TransportError):
    """What a session raises while it consumes and publishes."""


class StaleAssignment(SessionError):
    """A claim on a partition that this session lost, or lost and got again."""


class TransactionAborted(SessionError):
    """The transaction was aborted and nothing of it is visible; it may be tried again."""


class TooManyAborts(SessionError):
    """Several transactions in a row were aborted."""


class SessionFenced(SessionError):
    """A newer instance with the same transactional id took over."""


class AccessDenied(SessionError):
    """The broker's access rules forbid what the session has to do."""


class OutcomeUnknown(SessionError):
    """The coordinator could not be asked whether a transaction was committed."""


class RecordTooLarge(SessionError):
    """A record to publish is larger than its topic, or any topic of ours, accepts."""

    def __init__(self, topic: str, num_bytes: int, limit: str) -> None:
        super().__init__(f"a record of {num_bytes} bytes for {topic} exceeds {limit}; split it")
        self.topic = topic
        self.num_bytes = num_bytes


class DataLossDetected(SessionError):
    """The next record to read no longer exists, or the log ends before it."""

    def __init__(self, lost_from: Origin, lost_to: int) -> None:
        super().__init__(
            f"records {lost_from.offset} to {lost_to} of {lost_from.topic}/{lost_from.partition} "
            "are gone (retention, or the topic was made anew); read docs/delivery.md, then reset "
            "the group's offsets to go on"
        )
        self.lost_from = lost_from
        self.lost_to = lost_to
