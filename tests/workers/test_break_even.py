"""Where two ways cost the same, from times at two row counts."""

import pytest

from workers.break_even import FEW_ROWS, MANY_ROWS, NEVER, Gains

SPAN = MANY_ROWS - FEW_ROWS


@pytest.mark.parametrize(
    ("few_us", "many_us", "expected"),
    [
        pytest.param(-10.0, 10.0, FEW_ROWS + SPAN // 2, id="between the two"),
        pytest.param(-30.0, -10.0, FEW_ROWS + 3 * SPAN // 2, id="beyond both"),
        pytest.param(5.0, 27.0, 0, id="faster for any number, and gaining"),
        pytest.param(1.0, 23.0, FEW_ROWS // 2, id="fewer than both"),
        pytest.param(5.0, 5.0, 0, id="faster for any number, by as much"),
        pytest.param(-10.0, -10.0, NEVER, id="parallel"),
        pytest.param(-10.0, -40.0, NEVER, id="ever slower"),
        pytest.param(5.0, -5.0, NEVER, id="faster for few rows only"),
    ],
)
def test_break_even_rows(few_us: float, many_us: float, expected: int) -> None:
    """Where the line through both gains reaches zero."""
    gains = Gains(few_us, many_us)

    assert gains.break_even_rows() == expected
    assert Gains.of(gains._asdict()) == gains
