"""What the pipeline promises on every session: each record answered exactly once, whatever happens.

The stage puts its member's name before each value, so the answers tell who published them.
"""

from collections import Counter
from collections.abc import Sequence

import pytest

from tests.contracts.backends import Backend, Crash, aborting
from tests.contracts.members import LIMIT_S, Member, eventually
from transport.errors import StageFailed, TooManyAborts
from transport.intake import IntakeLimits
from transport.records import OutgoingRecord, Partition, Record
from transport.window import CountWindow


def _fill(backend: Backend, num_records: int) -> set[str]:
    """Publish distinct values evenly to the three partitions of `in`."""
    for partition in range(3):
        values = [b"%d-%04d" % (partition, i) for i in range(partition, num_records, 3)]
        backend.append("in", values, partition)
    return {f"{i % 3}-{i:04d}" for i in range(num_records)}


def _answers(backend: Backend) -> list[str]:
    return [(record.value or b"").decode() for record in backend.visible("out")]


def _answered(backend: Backend) -> Counter[str]:
    """Count the visible answers of each value, whoever gave them."""
    return Counter(answer.split(":", 1)[1] for answer in _answers(backend))


def _owns(member: Member, backend: Backend) -> set[int]:
    name = backend.name("in")
    return {i for i in range(3) if member.session.epoch(Partition(name, i)) is not None}


def test_every_record_is_answered_once(backend: Backend) -> None:
    """Three hundred records: each answered once, every offset settled."""
    values = _fill(backend, 300)

    with Member(backend, "a"):
        eventually(lambda: len(_answers(backend)) >= 300, "300 answers")

    assert _answered(backend) == Counter(values)
    assert backend.committed("group", "in") == {Partition("in", i): 100 for i in range(3)}


def test_answers_keep_the_order_of_a_partition(backend: Backend) -> None:
    """Answers of one partition to one partition stand in the order of their records."""
    _fill(backend, 90)

    member = Member(backend, "a", window=CountWindow(7))
    member.stage.partition = 0
    with member:
        eventually(lambda: len(_answers(backend)) >= 90, "90 answers")

    for partition in range(3):
        found = [answer for answer in _answers(backend) if answer.startswith(f"a:{partition}-")]
        assert found == sorted(found)


def test_two_members_share_the_work(backend: Backend) -> None:
    """Two members answer everything once between them."""
    with Member(backend, "a") as first, Member(backend, "b") as second:
        eventually(
            lambda: (
                len(_owns(first, backend)) in (1, 2)
                and _owns(first, backend) | _owns(second, backend) == {0, 1, 2}
            ),
            "both own partitions",
        )
        values = _fill(backend, 300)
        eventually(lambda: len(_answers(backend)) >= 300, "300 answers")

    assert _answered(backend) == Counter(values)
    assert {answer[0] for answer in _answers(backend)} == {"a", "b"}


def test_aborted_transactions_are_repeated(backend: Backend) -> None:
    """After two aborts the same answers are published again, from memory, and seen once."""
    values = _fill(backend, 30)

    with Member(backend, "a", before_commit=aborting(2)) as member:
        eventually(lambda: len(_answers(backend)) >= 30, "30 answers")

    assert member.error is None
    assert _answered(backend) == Counter(values)
    assert len(backend.everything("out")) > 30
    assert member.stage.num_processed == 30


def test_too_many_aborts_end_the_process_without_loss(backend: Backend) -> None:
    """After three aborts in a row the pipeline ends; its successor answers everything."""
    values = _fill(backend, 30)

    with Member(backend, "a", before_commit=aborting(99)) as member:
        eventually(lambda: member.error is not None, "the pipeline gave up")
    assert isinstance(member.error, TooManyAborts)
    assert _answers(backend) == []

    with Member(backend, "a"):
        eventually(lambda: len(_answers(backend)) >= 30, "30 answers")
    assert _answered(backend) == Counter(values)


def test_crash_between_publish_and_commit(backend: Backend) -> None:
    """A process that dies with everything written but not committed leaves nothing visible."""

    def crash() -> None:
        raise Crash

    values = _fill(backend, 30)

    with Member(backend, "a", before_commit=crash) as member:
        eventually(lambda: member.error is not None, "the crash")
    assert isinstance(member.error, Crash)
    assert len(backend.everything("out")) > 0
    assert _answers(backend) == []

    with Member(backend, "a"):
        eventually(lambda: len(_answers(backend)) >= 30, "30 answers")
    assert _answered(backend) == Counter(values)


def test_failing_stage_ends_the_process_uncommitted(backend: Backend) -> None:
    """A stage that raises is a bug: the process ends, and its successor reads the records again."""

    class Failing:
        def process(self, records: Sequence[Record], /) -> Sequence[OutgoingRecord]:
            raise ZeroDivisionError(len(records))

    values = _fill(backend, 30)

    with Member(backend, "a", stage=Failing()) as member:
        eventually(lambda: member.error is not None, "the failure")
    assert isinstance(member.error, StageFailed)
    assert "ZeroDivisionError" in str(member.error)
    assert backend.everything("out") == []
    assert sum(backend.committed("group", "in").values()) == 0

    with Member(backend, "a"):
        eventually(lambda: len(_answers(backend)) >= 30, "30 answers")
    assert _answered(backend) == Counter(values)


def test_late_work_of_a_revoked_partition_is_dropped(backend: Backend) -> None:
    """Work that outlasts the drain is not published by its old owner, only by the new one."""
    with Member(backend, "a", revoke_drain_s=0.1, window=CountWindow(1)) as first:
        eventually(lambda: _owns(first, backend) == {0, 1, 2}, "the first owns all")
        first.stage.gate.clear()
        values = _fill(backend, 3)
        assert first.stage.entered.wait(LIMIT_S)
        with Member(backend, "b") as second:
            eventually(lambda: len(_owns(second, backend)) > 0, "the second owns a partition")
            theirs = {f"{index}-{index:04d}" for index in _owns(second, backend)}
            eventually(lambda: _seen_by("b", backend) >= theirs, "the second answered its own")
            first.stage.gate.set()
            eventually(lambda: len(_answers(backend)) >= 3, "3 answers")

    assert _answered(backend) == Counter(values)
    assert _seen_by("a", backend).isdisjoint(theirs)


def test_finished_work_is_published_before_a_partition_leaves(backend: Backend) -> None:
    """Work that is done within the drain is published by its old owner and not done again."""
    # The unit is only half done when the rebalance comes; the drain waits for it.
    with Member(backend, "a", revoke_drain_s=LIMIT_S, window=CountWindow(3)) as first:
        eventually(lambda: _owns(first, backend) == {0, 1, 2}, "the first owns all")
        first.stage.gate.clear()
        values = _fill(backend, 3)
        assert first.stage.entered.wait(LIMIT_S)
        with Member(backend, "b") as second:
            eventually(lambda: first.session.is_draining, "the first gives partitions up")
            first.stage.gate.set()
            eventually(lambda: len(_owns(second, backend)) > 0, "the second owns a partition")
            eventually(lambda: len(_answers(backend)) >= 3, "3 answers")

    assert _answered(backend) == Counter(values)
    assert first.stage.num_processed + second.stage.num_processed == 3


def test_mixed_unit_is_done_again_without_the_revoked_part(backend: Backend) -> None:
    """Records that stay ours are answered by us, even from a unit that lost some of its records."""
    with Member(backend, "a", revoke_drain_s=0.1, window=CountWindow(100)) as first:
        eventually(lambda: _owns(first, backend) == {0, 1, 2}, "the first owns all")
        first.stage.gate.clear()
        values = _fill(backend, 60)
        assert first.stage.entered.wait(LIMIT_S)
        with Member(backend, "b") as second:
            eventually(lambda: len(_owns(second, backend)) > 0, "the second owns a partition")
            first.stage.gate.set()
            eventually(lambda: len(_answers(backend)) >= 60, "60 answers")
            owned = {"a": _owns(first, backend), "b": _owns(second, backend)}

    assert _answered(backend) == Counter(values)
    for answer in _answers(backend):
        name, value = answer.split(":")
        assert int(value[0]) in owned[name]


def test_backpressure_bounds_what_is_read(backend: Backend) -> None:
    """A slow stage pauses reading; when it goes on, nothing was lost and nothing comes twice."""
    values = _fill(backend, 300)
    intake = IntakeLimits(max_records=20)

    member = Member(backend, "a", window=CountWindow(5), intake=intake)
    member.stage.gate.clear()
    with member:
        eventually(lambda: member.session.num_pauses > 0, "a pause")
        held = member.session.num_delivered
        eventually(lambda: member.session.num_polls_paused >= 20, "twenty polls while paused")
        assert member.session.num_delivered == held <= 60
        member.stage.gate.set()
        eventually(lambda: len(_answers(backend)) >= 300, "300 answers")

    assert _answered(backend) == Counter(values)
    assert member.session.num_resumes > 0


def test_work_is_held_back_while_it_may_not_be_taken(backend: Backend) -> None:
    """Without leave no unit is cut; with it everything is answered."""
    values = _fill(backend, 60)
    may_take: list[bool] = []
    intake = IntakeLimits(max_records=10)

    with Member(backend, "a", intake=intake, may_take=lambda: bool(may_take)) as member:
        eventually(lambda: member.session.num_polls_paused >= 5, "polls while held back")
        assert member.stage.num_processed == 0
        may_take.append(True)
        eventually(lambda: len(_answers(backend)) >= 60, "60 answers")

    assert _answered(backend) == Counter(values)


def test_stop_publishes_work_in_flight(backend: Backend) -> None:
    """A stop waits for the unit that is being computed, publishes it, and settles it."""
    with Member(backend, "a", window=CountWindow(3)) as member:
        eventually(lambda: _owns(member, backend) == {0, 1, 2}, "it owns all")
        member.stage.gate.clear()
        backend.append("in", [b"x"], 0)
        assert member.stage.entered.wait(LIMIT_S)
        member.stop.set()
        eventually(lambda: member.session.num_pauses > 0, "the drain began")
        assert _answers(backend) == []
        member.stage.gate.set()
        member.join()

    assert member.error is None
    assert _answers(backend) == ["a:x"]
    assert backend.committed("group", "in")[Partition("in", 0)] == 1


def test_one_transaction_covers_all_finished_units(backend: Backend) -> None:
    """Fast units share transactions: far fewer commits than units."""
    values = _fill(backend, 300)

    with Member(backend, "a", window=CountWindow(1)) as member:
        eventually(lambda: len(_answers(backend)) >= 300, "300 answers")

    assert _answered(backend) == Counter(values)
    assert member.session.num_publishes < 150


def _seen_by(name: str, backend: Backend) -> set[str]:
    return {a.split(":", 1)[1] for a in _answers(backend) if a.startswith(f"{name}:")}


@pytest.mark.parametrize("num_records", [0, 1])
def test_idle_pipeline_stops_at_once(backend: Backend, num_records: int) -> None:
    """Nothing to do is no reason to hang."""
    backend.append("in", [b"x"] * num_records, 0)

    with Member(backend, "a") as member:
        eventually(lambda: len(_answers(backend)) >= num_records, "the answers")
        eventually(lambda: _owns(member, backend) == {0, 1, 2}, "it joined")

    assert member.error is None
