"""Tables of measured costs: interpolation, monotony, and what is refused."""

import numpy as np
import pytest

from scheduler.cost_model import CostModel, CostTable, default_cost_model


def _table() -> CostTable:
    return CostTable.from_measured([1, 4, 16], [8, 32], [[1, 2], [3, 6], [9, 20]])


def test_a_grid_point_is_returned_as_measured() -> None:
    """A grid point is returned as measured."""
    assert _table().at([1, 4, 16], [8, 32, 8]).tolist() == [1, 6, 9]


def test_between_points_it_is_bilinear() -> None:
    """Between points it is bilinear."""
    assert float(_table().at(10, 20)) == pytest.approx((3 + 9 + 6 + 20) / 4)


def test_beyond_the_grid_the_cost_grows_with_the_tokens() -> None:
    """Beyond the grid the cost grows with the tokens."""
    assert float(_table().at(32, 8)) == pytest.approx(18)
    assert float(_table().at(1, 64)) == pytest.approx(4)
    assert float(_table().at(32, 64)) == pytest.approx(80)


def test_below_the_grid_the_first_value_holds() -> None:
    """Below the grid the first value holds."""
    assert float(_table().at(1, 2)) == pytest.approx(1)


def test_noise_that_falls_is_raised_so_that_costs_never_fall() -> None:
    """Noise that falls is raised so that costs never fall."""
    noisy = CostTable.from_measured([1, 2, 4], [8, 16, 32], [[2, 1, 3], [1, 4, 2], [5, 1, 1]])
    rows, lens = np.arange(1, 200), np.arange(1, 200)

    costs = noisy.at(rows[:, None], lens[None, :])

    assert np.all(np.diff(costs, axis=0) >= -1e-9)
    assert np.all(np.diff(costs, axis=1) >= -1e-9)


def test_costs_by_rows_are_those_of_the_table() -> None:
    """Costs by rows are those of the table."""
    costs = _table().by_rows(20, 18)

    assert costs[0] == 0
    assert costs[1:] == pytest.approx(_table().at(np.arange(1, 19), 20))


def test_a_kind_that_was_not_measured_costs_as_much_as_the_dearest() -> None:
    """A kind that was not measured costs as much as the dearest."""
    cheap = CostTable.from_measured([1, 2], [8, 16], [[1, 1], [1, 1]])
    model = CostModel(alpha=_table(), beta={"lora": cheap, "mask": _table()})

    assert model.beta_of("lora") is cheap
    assert model.beta_of("prompt") is model.beta["mask"]


def test_a_kind_that_runs_anothers_operators_costs_as_much_as_it() -> None:
    """DoRA is LoRA and a scale."""
    cheap = CostTable.from_measured([1, 2], [8, 16], [[1, 1], [1, 1]])
    model = CostModel(alpha=_table(), beta={"lora": cheap, "mask": _table()})

    assert model.beta_of("dora") is cheap
    assert model.beta_of("compacter") is model.beta["mask"], "adapters were not measured"


def test_the_built_in_shape_makes_batching_worth_while() -> None:
    """The built in shape makes batching worth while."""
    model = default_cost_model()

    together = float(model.alpha.at(64, 16))
    alone = 64 * float(model.alpha.at(1, 16))

    assert together < 0.5 * alone
    assert float(model.beta_of("mask").at(8, 32)) > float(model.beta_of("bitfit").at(8, 32))


@pytest.mark.parametrize(
    ("rows", "lens", "costs", "complaint"),
    [
        ([1, 1], [8, 16], [[1, 1], [1, 1]], "ascending rows"),
        ([0, 1], [8, 16], [[1, 1], [1, 1]], "ascending rows"),
        ([1], [8, 16], [[1, 1]], "ascending rows"),
        ([1, 2], [16, 8], [[1, 1], [1, 1]], "ascending lengths"),
        ([1, 2], [8, 16], [[1, 1]], "shape"),
        ([1, 2], [8, 16], [[1, np.nan], [1, 1]], "finite"),
        ([1, 2], [8, 16], [[1, -1], [1, 1]], "finite"),
    ],
)
def test_a_table_that_is_none_is_refused(
    rows: list[int], lens: list[int], costs: list[list[float]], complaint: str
) -> None:
    """A table that is none is refused."""
    with pytest.raises(ValueError, match=complaint):
        CostTable.from_measured(rows, lens, costs)
