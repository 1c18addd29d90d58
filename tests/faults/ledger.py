"""The ledger of a run: what was sent, and what the broker said to it, as it happened.

One line of JSON before a query is handed to the producer and one when its fate is known, so that
the ledger of a sender that dies says what may be in the log. `ok`: stored, and where. `fail`:
certainly not stored. `info`: nobody knows, which is also what no second line means.
"""

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Self

from messages.digest import input_digest
from messages.origin import Origin
from messages.query import Query

Outcome = Literal["ok", "fail", "info"]


@dataclass(frozen=True, slots=True)
class Publication:
    """One query of the ledger."""

    query_id: str
    task: str
    input_digest: bytes
    outcome: Outcome
    partition: int | None = None
    offset: int | None = None


class Ledger:
    """Appends to a ledger file; each line is on its way to the disk before the call returns."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("a", buffering=1)
        self._lock = threading.Lock()

    def invoke(self, query: Query) -> None:
        """The query is about to be handed to the producer."""
        digest = input_digest(query.text, query.text_pair).hex()
        self._write({"invoke": query.id, "task": query.task, "digest": digest})

    def ok(self, query_id: str, origin: Origin) -> None:
        """The broker has stored the query."""
        self._write({"ok": query_id, "partition": origin.partition, "offset": origin.offset})

    def fail(self, query_id: str, why: str) -> None:
        """The query is certainly not stored."""
        self._write({"fail": query_id, "why": why})

    def info(self, query_id: str, why: str) -> None:
        """The query may be stored."""
        self._write({"info": query_id, "why": why})

    def _write(self, line: dict[str, object]) -> None:
        with self._lock:
            self._file.write(json.dumps(line) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write no more."""
        with self._lock:
            self._file.close()


def read_ledger(lines: Iterable[str]) -> list[Publication]:
    """Read a ledger, in the order of the invocations.

    Raises:
        ValueError: If it contradicts itself.
    """
    publications: dict[str, Publication] = {}
    for line in lines:
        event = json.loads(line)
        if "invoke" in event:
            if event["invoke"] in publications:
                raise ValueError(f"query {event['invoke']} was invoked twice")
            digest = bytes.fromhex(event["digest"])
            publications[event["invoke"]] = Publication(
                event["invoke"], event["task"], digest, "info"
            )
            continue
        (outcome,) = (kind for kind in ("ok", "fail", "info") if kind in event)
        invoked = publications[event[outcome]]
        publications[invoked.query_id] = Publication(
            invoked.query_id,
            invoked.task,
            invoked.input_digest,
            outcome,  # type: ignore[arg-type]
            event.get("partition"),
            event.get("offset"),
        )
    return list(publications.values())
