"""How a query wants to be answered: the envelope that travels from the query to its answer."""

from dataclasses import dataclass
from typing import Literal

Encoding = Literal["msgpack", "json"]
CallerEnvelope = Literal["native", "bare", "cloudevents"]


@dataclass(frozen=True, slots=True)
class ReplyAddress:
    """Everything of a query's record that its answer must echo, byte for byte."""

    key: bytes | None
    encoding: Encoding = "msgpack"
    envelope: CallerEnvelope = "native"
    headers: tuple[tuple[str, bytes], ...] = ()
    """Correlation headers of the Spring, SmallRye and FastStream dialects, `traceparent`,
    `tracestate`, and for CloudEvents `ce_id`, `ce_source`, `ce_correlationid` and so on."""
    topic: str | None = None
    """A caller-chosen reply topic, already checked against the allow-list."""
