"""How large the tiles of a batch are."""

import pytest

from gpu_ops.grouped.tiles import tile_rows_for


@pytest.mark.parametrize(
    ("task_rows", "columns", "expected"),
    [
        pytest.param([31] * 64, 64, 16, id="few rows of each task"),
        pytest.param([64] * 32, 64, 64, id="as many blocks as keep a device busy"),
        pytest.param([64] * 31, 64, 16, id="one block fewer"),
        pytest.param([64] * 31, 65, 64, id="and twice as many by columns"),
        pytest.param([64 * 64], 24, 64, id="many tiles of one task"),
        pytest.param([1] * 63 + [32], 24, 64, id="by the task with most rows"),
    ],
)
def test_size_of_tiles(task_rows: list[int], columns: int, expected: int) -> None:
    """Large where tasks have rows and a device has blocks enough."""
    assert tile_rows_for(task_rows, columns, 32) == expected


def test_size_where_small_tiles_do_more() -> None:
    """Of another number of blocks on."""
    assert tile_rows_for([64] * 255, 64, 256) == 16
    assert tile_rows_for([64] * 256, 64, 256) == 64
