"""The scheduler's stage: a window of queries and escalations in, macro-batches and errors out.

Runs on the pipeline's compute thread and touches no Kafka client. Every record that comes in leaves
as exactly one row of one batch, or as one error answer with its raw bytes in the dead letters. What
is planned again after a crash has the same batches with the same ids.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from messages.answer_codec import encode_answer
from messages.errors import MessageError
from messages.topics import TopicNames
from messages.truncation import Truncation
from scheduler.admission import Admission
from scheduler.batch_assembly import BatchHeading, encode_within
from scheduler.cost_model import CostModel
from scheduler.placement import Placement
from scheduler.planning import PlanLimits, plan
from scheduler.policies.catalogue import POLICIES
from scheduler.rows import PendingRow, Refusal, columns_of
from scheduler.tokenisation import Tokenizers, without_pruned_words
from transport.dead_letters import dead_letter
from transport.records import OutgoingRecord, Record

BATCH_SIZE_SHARE = 0.9
"""Of the topic's limit that a batch message may fill; the rest is for headers and framing."""


@dataclass(frozen=True, slots=True)
class Planning:
    """How windows become batches."""

    policy: str
    """A key of `POLICIES`."""
    limits: PlanLimits
    cost_models: Mapping[str, CostModel]
    """By backbone."""
    default_cost_model: CostModel
    """For backbones that were not profiled."""
    max_batch_bytes: int
    """The batch topics' limit of one message."""


class SchedulingStage:
    """Implements `transport.compute.Stage`."""

    def __init__(
        self,
        *,
        topics: TopicNames,
        admission: Admission,
        tokenizers: Tokenizers,
        planning: Planning,
        placements: Mapping[int, Placement],
        wall_clock_s: Callable[[], float] = time.time,
    ) -> None:
        """Make a stage.

        Args:
            topics: Names of the namespace.
            admission: Decides which records become rows.
            tokenizers: Of all backbones.
            planning: Policy, limits and costs.
            placements: One for the pool of each served level.
            wall_clock_s: Seconds since 1970.
        """
        self._topics = topics
        self._admission = admission
        self._tokenizers = tokenizers
        self._planning = planning
        self._policy = POLICIES[planning.policy]
        self._placements = placements
        self._wall_clock_s = wall_clock_s

    def process(self, records: Sequence[Record], /) -> list[OutgoingRecord]:
        """Schedule one window."""
        started_ms = 1000 * self._wall_clock_s()
        rows: list[PendingRow] = []
        outgoing: list[OutgoingRecord] = []
        for record in records:
            if record.topic == self._topics.escalations:
                admitted = self._admission.admit_escalation(record, started_ms)
            else:
                admitted = self._admission.admit_query(record, started_ms)
            if isinstance(admitted, Refusal):
                outgoing += self._refuse(admitted)
            else:
                rows.append(admitted)
        for refusal in self._tokenise(rows):
            outgoing += self._refuse(refusal)
        pools: defaultdict[tuple[int, str], list[PendingRow]] = defaultdict(list)
        for row in rows:
            if row.token_ids:
                pools[row.level.level, row.level.backbone].append(row)
        for (level, backbone), pool_rows in pools.items():
            outgoing += self._plan_pool(level, backbone, pool_rows, started_ms)
        return outgoing

    def _tokenise(self, rows: Sequence[PendingRow]) -> Iterator[Refusal]:
        """Give every row its token ids; yield a refusal for each that cannot have any."""
        groups: defaultdict[tuple[str, int, Truncation], list[PendingRow]] = defaultdict(list)
        for row in rows:
            level = row.level
            groups[level.backbone, level.max_tokens, level.truncation].append(row)
        for (backbone, max_tokens, truncation), group in groups.items():
            try:
                tokenizer = self._tokenizers.of(backbone)
            except MessageError as error:
                for row in group:
                    yield row.refused(error.reason, error.detail, "tokenise")
                continue
            texts = [without_pruned_words(r.text, r.text_pair, r.kept_words) for r in group]
            outcomes = tokenizer.encode(texts, max_tokens, truncation)
            for row, outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, MessageError):
                    yield row.refused(outcome.reason, outcome.detail, "tokenise")
                else:
                    row.token_ids = outcome

    def _plan_pool(
        self, level: int, backbone: str, rows: Sequence[PendingRow], started_ms: float
    ) -> Iterator[OutgoingRecord]:
        planning = self._planning
        macro_batches = plan(
            columns_of(rows),
            planning.cost_models.get(backbone, planning.default_cost_model),
            self._policy,
            planning.limits,
        )
        now_ms = 1000 * self._wall_clock_s()
        heading = BatchHeading(
            level, backbone, planning.policy, int(now_ms), max(0.0, now_ms - started_ms)
        )
        max_bytes = int(BATCH_SIZE_SHARE * planning.max_batch_bytes)
        topic = self._topics.batches(level)
        placement = self._placements[level]
        for macro_batch in macro_batches:
            batch_rows = [rows[index] for index in macro_batch.row_indices.tolist()]
            for encoded in encode_within(batch_rows, heading, max_bytes):
                if isinstance(encoded, Refusal):
                    yield from self._refuse(encoded)
                    continue
                yield OutgoingRecord(
                    topic,
                    encoded.message.value,
                    headers=encoded.message.headers,
                    partition=placement.pick(macro_batch.predicted_ms * encoded.row_share),
                )

    def _refuse(self, refusal: Refusal) -> Iterator[OutgoingRecord]:
        answer, reply = refusal.answer, refusal.reply
        if reply is not None:
            encoded = encode_answer(answer, reply)
            yield OutgoingRecord(
                reply.topic or self._topics.results,
                encoded.value,
                key=reply.key,
                headers=encoded.headers,
            )
        yield dead_letter(
            refusal.record,
            reason=answer.reason,
            message=answer.message,
            stage=answer.stage,
            attempt=answer.attempt,
            topic=self._topics.dead_letters,
        )
