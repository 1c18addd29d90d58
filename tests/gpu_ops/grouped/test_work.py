"""FLOPs and bytes of each operator against counts by hand, at sizes where these are short."""

import pytest

from gpu_ops.grouped.bias_gelu import bias_gelu_work
from gpu_ops.grouped.bottleneck import bottleneck_work
from gpu_ops.grouped.layer_norm import layer_norm_work
from gpu_ops.grouped.low_rank import low_rank_work
from gpu_ops.grouped.masked_product import masked_product_work
from gpu_ops.grouped.operator_schedule import Work, intensity
from gpu_ops.grouped.scale import scale_work
from gpu_ops.grouped.sparse_delta import sparse_delta_work

TASK_ROWS = [3, 2]
"""Of two tasks: five rows."""


@pytest.mark.parametrize(
    ("gelu", "is_scaled", "flops", "num_values"),
    [
        (False, False, 5 * 10, 50 + 50 + 2 * 10),
        (True, False, 5 * 10 * 6, 50 + 50 + 2 * 10),
        (True, True, 5 * 10 * 7, 50 + 50 + 2 * 10 + 2 * 10),
    ],
)
def test_bias_gelu(gelu: bool, is_scaled: bool, flops: int, num_values: int) -> None:
    """5 rows of 10 in and out; a bias a task, and a scale."""
    found = bias_gelu_work(TASK_ROWS, 10, 2, gelu=gelu, is_scaled=is_scaled)

    assert found == Work(flops, 2 * num_values)


def test_scale() -> None:
    """A product an element; a vector a task."""
    assert scale_work(TASK_ROWS, 10, 4) == Work(50, 4 * (50 + 50 + 20))


def test_layer_norm() -> None:
    """Two tensors in, one out; three vectors a task."""
    assert layer_norm_work(TASK_ROWS, 10, 4) == Work(500, 4 * (150 + 60))


def test_low_rank() -> None:
    """10 inputs, 3 blocks of rank 2, 12 outputs.

    A row shrinks by 6 dot products of 10, and expands by 12 of 2 with an addition each. Its 10
    inputs are read, its 6 ranks written and read, its 12 outputs read and written. A task has 6
    rows of 10 down and 12 of 2 up.
    """
    found = low_rank_work(TASK_ROWS, 10, 12, rank=2, blocks=3, element_bytes=2)

    assert found == Work(5 * (6 * 20 + 12 * 5), 2 * (5 * (10 + 12 + 24) + 2 * (60 + 24)))


def test_bottleneck() -> None:
    """10 hidden, 4 inside.

    A row goes down by 4 dot products of 10 with bias and GELU (6 more), and up by 10 of 4 with bias
    and residual. It is read twice and written once, its 4 written and read. A task has two
    matrices and two biases.
    """
    found = bottleneck_work(TASK_ROWS, 10, 4, 2)

    assert found == Work(5 * (4 * 26 + 10 * 10), 2 * (5 * (30 + 8) + 2 * (80 + 14)))


def test_masked_product() -> None:
    """8 inputs, 6 outputs: 48 weights read once for both tasks, and 6 bytes of bits for each."""
    found = masked_product_work(TASK_ROWS, 8, 6, 2)

    assert found == Work(5 * 96, 2 * (5 * 14 + 48) + 12)


def test_sparse_delta() -> None:
    """3 rows times 7 changes and 2 rows times 4, and an addition to each of 6 outputs of 5 rows.

    Of a change a column of 2 bytes and a value; 7 offsets of 4 bytes for each task.
    """
    found = sparse_delta_work(TASK_ROWS, [7, 4], 8, 6, 2)

    assert found == Work(2 * (21 + 8) + 30, 2 * 5 * (8 + 12) + 11 * 4 + 2 * 28)


def test_a_grouped_operator_is_the_sum_of_its_tasks_but_for_what_they_share() -> None:
    """Only masks read the shared weight, and read it once."""
    one, other = (low_rank_work([rows], 10, 12, 2, 3, 2) for rows in TASK_ROWS)
    first, second = (masked_product_work([rows], 8, 6, 2) for rows in TASK_ROWS)

    assert low_rank_work(TASK_ROWS, 10, 12, 2, 3, 2) == one + other
    shared = Work(0, 48 * 2)
    assert masked_product_work(TASK_ROWS, 8, 6, 2) + shared == first + second


def test_dense_operators_are_more_intense_than_those_by_elements() -> None:
    """BERT-base, a task of 64 tokens in two bytes: what the rule keeps apart."""
    rows = [64]
    ranked = [
        masked_product_work(rows, 768, 3072, 2),
        bottleneck_work(rows, 768, 64, 2),
        sparse_delta_work(rows, [768 * 3072 // 200], 768, 3072, 2),
        layer_norm_work(rows, 768, 2),
        bias_gelu_work(rows, 3072, 2, gelu=True, is_scaled=False),
        scale_work(rows, 3072, 2),
    ]

    assert sorted(ranked, key=intensity, reverse=True) == ranked
