"""Where two ways cost the same, from times at two row counts."""

import pytest

from workers.break_even import NEVER, crossing


@pytest.mark.parametrize(
    ("few_us", "many_us", "expected"),
    [
        pytest.param(-10.0, 10.0, 60, id="between the two"),
        pytest.param(-30.0, -10.0, 160, id="beyond both"),
        pytest.param(5.0, 50.0, 0, id="faster for any number"),
        pytest.param(-10.0, -10.0, NEVER, id="parallel"),
        pytest.param(-10.0, -40.0, NEVER, id="ever slower"),
        pytest.param(5.0, -5.0, NEVER, id="faster for few rows only"),
    ],
)
def test_crossing(few_us: float, many_us: float, expected: int) -> None:
    """The line through (10, few_us) and (110, many_us) reaches zero there."""
    assert crossing(10, few_us, 110, many_us) == expected
