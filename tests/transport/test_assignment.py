"""The epoch guard."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.assignment import Assignment
from transport.errors import StaleAssignment
from transport.records import Claim, Partition, Record

P0, P1 = Partition("in", 0), Partition("in", 1)


def _record(offset: int, partition: int = 0) -> Record:
    return Record("in", partition, offset, None, b"", (), 0)


def test_nothing_is_owned_at_first() -> None:
    """Before the first assignment no partition has an epoch and no record is accepted."""
    assignment = Assignment()

    assert assignment.owned == frozenset()
    assert assignment.epoch(P0) is None
    assert not assignment.accept(_record(0))


def test_each_assignment_is_a_new_epoch() -> None:
    """A partition that comes back is not the one that left."""
    assignment = Assignment()
    assignment.assign([P0, P1])
    first = assignment.epoch(P0)
    assignment.revoke([P0])
    between = assignment.epoch(P0)
    assignment.assign([P0])

    assert first is not None
    assert between is None
    assert assignment.epoch(P0) != first
    assert assignment.owned == {P0, P1}


def test_claims_of_the_present_epoch_pass() -> None:
    """And only they do: not of an earlier epoch, not of a partition that left."""
    assignment = Assignment()
    assignment.assign([P0, P1])
    claim = Claim(P0, assignment.epoch(P0) or 0, 5)
    assignment.check([claim])
    assignment.revoke([P0])

    with pytest.raises(StaleAssignment, match="not owned"):
        assignment.check([claim])
    assignment.assign([P0])
    with pytest.raises(StaleAssignment, match="now 2"):
        assignment.check([claim])


def test_record_is_accepted_once_per_epoch() -> None:
    """A record that a seek delivers again is dropped; after a rebalance it counts again."""
    assignment = Assignment()
    assignment.assign([P0])

    assert [assignment.accept(_record(o)) for o in (4, 5, 4, 5, 9)] == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert assignment.next_offset(P0) == 10
    assignment.revoke([P0])
    assignment.assign([P0])
    assert assignment.next_offset(P0) is None
    assert assignment.accept(_record(4))


@given(st.lists(st.tuples(st.sampled_from(["assign", "revoke", "claim"]), st.integers(0, 2))))
def test_no_claim_outlives_its_assignment(steps: list[tuple[str, int]]) -> None:
    """Whatever happens: a claim passes exactly if its partition was held without a break since."""
    assignment = Assignment()
    held_since: dict[Partition, int] = {}
    claims: list[tuple[Claim, int]] = []
    for now, (step, number) in enumerate(steps):
        partition = Partition("in", number)
        if step == "assign" and partition not in held_since:
            assignment.assign([partition])
            held_since[partition] = now
        elif step == "revoke":
            assignment.revoke([partition])
            held_since.pop(partition, None)
        elif step == "claim" and (epoch := assignment.epoch(partition)) is not None:
            claims.append((Claim(partition, epoch, 1), now))
        for claim, made in claims:
            is_valid = held_since.get(claim.source, len(steps)) < made
            if is_valid:
                assignment.check([claim])
            else:
                with pytest.raises(StaleAssignment):
                    assignment.check([claim])
