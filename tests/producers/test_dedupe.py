"""Exact de-duplication: every repetition is recognised, nothing new is taken for one."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.origin import Origin
from producers.dedupe import IntervalSet, OriginDedupe


@given(st.lists(st.integers(0, 40), max_size=120))
def test_agrees_with_a_plain_set(numbers: list[int]) -> None:
    """`add` says new exactly when a plain set would, and holds the same numbers."""
    seen = IntervalSet()
    oracle: set[int] = set()

    for number in numbers:
        assert seen.add(number) is (number not in oracle)
        oracle.add(number)

    assert [n for n in range(-1, 42) if n in seen] == sorted(oracle)
    assert len(seen) == len(oracle)


@given(st.sets(st.integers(0, 40)))
def test_intervals_are_as_few_as_possible(numbers: set[int]) -> None:
    """Neighbours merge whatever the order: one interval per run of numbers."""
    seen = IntervalSet()
    for number in numbers:
        seen.add(number)

    runs = sum(1 for number in numbers if number - 1 not in numbers)

    assert len(seen.intervals) == runs
    assert IntervalSet(seen.intervals).intervals == seen.intervals


def test_given_intervals_that_touch_or_overlap_are_merged() -> None:
    """A state that was stored in pieces is the same set."""
    assert IntervalSet([(5, 8), (0, 3), (3, 5), (6, 7)]).intervals == ((0, 8),)


def test_an_empty_interval_is_refused() -> None:
    """A damaged state is not taken for an empty one."""
    with pytest.raises(ValueError, match="start < end"):
        IntervalSet([(4, 4)])


def test_ten_thousand_duplicates_are_dropped_and_nothing_else() -> None:
    """Shuffled answers of 12 partitions, half of them twice: state stays 12 intervals."""
    origins = [Origin("q", "id", p, o) for p in range(12) for o in range(1_700)]
    records = origins + random.Random(0).sample(origins, 10_000)
    random.Random(1).shuffle(records)
    dedupe = OriginDedupe()

    fresh = [origin for origin in records if dedupe.add(origin)]

    assert sorted(fresh) == origins
    assert all(len(intervals) == 1 for _, intervals in dedupe.snapshot())


def test_a_topic_made_anew_starts_anew() -> None:
    """Offset 0 of a recreated topic is not the offset 0 that was seen."""
    dedupe = OriginDedupe()

    assert dedupe.add(Origin("q", "first", 0, 0))
    assert dedupe.add(Origin("q", "second", 0, 0))
    assert not dedupe.add(Origin("q", "first", 0, 0))


def test_a_stored_snapshot_goes_on_where_it_was() -> None:
    """What was seen before the restart is still recognised after it."""
    before = OriginDedupe()
    for offset in (0, 1, 2, 7):
        before.add(Origin("q", "id", 3, offset))

    after = OriginDedupe(before.snapshot())

    assert not after.add(Origin("q", "id", 3, 7))
    assert after.add(Origin("q", "id", 3, 6))
