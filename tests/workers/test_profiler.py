"""The profiler measures every kind, at every point, with PETs that really act."""

import numpy as np
import pytest

from scheduler.cost_model import COSTED_LIKE, CostTable
from scheduler.cost_model import PET_KINDS as PLANNED_KINDS
from tasks.pets.kinds import PET_KINDS, AnyPet
from workers.engine import Engine, EngineRow
from workers.profiler import PROFILED_PETS, load_random_task, measure_costs


def test_every_kind_is_measured_costed_like_a_measured_one_or_as_the_costliest() -> None:
    """The measured ones have default costs too; each likeness is between kinds that there are."""
    assert {pet.kind for pet in PROFILED_PETS} == set(PLANNED_KINDS)
    assert set(PLANNED_KINDS) | set(COSTED_LIKE) <= set(PET_KINDS)
    assert set(COSTED_LIKE.values()) <= set(PLANNED_KINDS)
    assert not set(COSTED_LIKE) & set(PLANNED_KINDS)


def test_each_point_of_the_grid_is_measured(small_engine: Engine) -> None:
    """The figures make cost tables, and the progress ends at the whole."""
    points: list[tuple[int, int]] = []

    measured = measure_costs(
        small_engine,
        num_rows=(1, 3),
        seq_lens=(4, 8, 12),
        repeats=1,
        on_point=lambda done, total: points.append((done, total)),
    )

    assert set(measured.beta_ms) == set(PLANNED_KINDS)
    for table in (measured.alpha_ms, *measured.beta_ms.values()):
        CostTable.from_measured((1, 3), (4, 8, 12), table)
    assert np.array(measured.alpha_ms).min() > 0
    assert len(points) == 6
    assert points[-1] == (4 * 24, 4 * 24)


@pytest.mark.parametrize("pet", PROFILED_PETS, ids=lambda pet: pet.kind)
def test_the_random_pet_changes_the_answer(small_engine: Engine, pet: AnyPet) -> None:
    """A PET without effect would be measured as free."""
    token_ids = np.array([101, 7592, 2088, 2129, 2024, 2017, 102])
    bare, with_pet = load_random_task(small_engine, None), load_random_task(small_engine, pet)

    plain, changed = small_engine.run([EngineRow(bare, token_ids), EngineRow(with_pet, token_ids)])

    assert not np.allclose(plain, changed, atol=1e-3)
