import pytest

from gpu_ops.grouped.operator_schedule import Measured, Work, deal, intensity

INTENSITIES = {
    "bias": 0.1,
    "adapter": 30.0,
    "lora": 8.0,
    "mask": 60.0,
    "diff": 0.5,
    "norm": 0.4,
    "scale": 0.2,
}


def dealt(num_streams: int, intensities: dict[str, float] = INTENSITIES) -> list[list[str]]:
    return deal(list(intensities), list(intensities.values()), num_streams)


def test_intensity_is_flops_over_bytes() -> None:
    """By the shapes: 6 FLOPs, 24 bytes."""
    assert intensity(Work(6, 24)) == 0.25


def test_measured_latency_times_bandwidth_stands_for_the_bytes() -> None:
    """PetS's formula: 600 FLOPs / (2 ms * 50 kB/s) = 600 FLOPs / 100 bytes."""
    assert intensity(Work(600, 24), Measured(0.002, 50e3)) == pytest.approx(6.0)


def test_work_adds_up() -> None:
    """Of operators that run one after the other."""
    assert Work(1, 20) + Work(300, 4000) == Work(301, 4020)


def test_operators_are_sorted_and_dealt_in_even_runs() -> None:
    """Sorted: mask, adapter, lora, diff, norm, scale, bias."""
    assert dealt(2) == [["mask", "adapter", "lora", "diff"], ["norm", "scale", "bias"]]
    assert dealt(3) == [["mask", "adapter", "lora"], ["diff", "norm"], ["scale", "bias"]]


def test_one_stream_runs_all_of_them() -> None:
    """From high to low."""
    assert dealt(1) == [["mask", "adapter", "lora", "diff", "norm", "scale", "bias"]]


def test_more_streams_than_operators_stay_empty() -> None:
    """One each, and the last ones none."""
    assert dealt(3, {"a": 1.0, "b": 2.0}) == [["b"], ["a"], []]
    assert dealt(2, {}) == [[], []]


@pytest.mark.parametrize("num_streams", range(1, 10))
def test_streams_have_equally_many_but_for_one(num_streams: int) -> None:
    """And each operator once."""
    streams = dealt(num_streams)

    lengths = [len(operators) for operators in streams]
    assert len(streams) == num_streams
    assert max(lengths) - min(lengths) <= 1
    assert sorted(one for operators in streams for one in operators) == sorted(INTENSITIES)


def test_operators_side_by_side_are_a_run_apart() -> None:
    """Eight ranks on two streams: no pair that meets is closer than four."""
    ranks = [float(rank) for rank in range(8)]

    first, second = deal(ranks, ranks, 2)

    assert [high - low for high, low in zip(first, second, strict=True)] == [4.0] * 4


def test_equal_intensities_keep_their_order() -> None:
    """So tasks of one kind are dealt alike each time: here tasks 0 to 5, two kinds in turn."""
    tasks = [0, 1, 2, 3, 4, 5]

    assert deal(tasks, [1.0, 2.0] * 3, 2) == [[1, 3, 5], [0, 2, 4]]
    assert deal(tasks, [1.0] * 6, 3) == [[0, 1], [2, 3], [4, 5]]


def test_what_cannot_be_dealt_is_refused() -> None:
    """No stream, an operator without an intensity, and one that moves nothing."""
    with pytest.raises(ValueError, match="at least one stream, got 0"):
        deal(["a"], [1.0], 0)
    with pytest.raises(ValueError, match="shorter"):
        deal(["a", "b"], [1.0], 2)
    with pytest.raises(ValueError, match="moves bytes"):
        intensity(Work(0, 0))
