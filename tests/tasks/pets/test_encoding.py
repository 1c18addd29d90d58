"""The way from dense tensors to stored ones: exact names, shapes, types, and ranges."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.backbone_shape import LINEAR_SITES, BackboneShape
from tasks.errors import (
    MissingTensor,
    NonFiniteWeights,
    RankOutOfRange,
    TensorShapeMismatch,
    TensorTypeMismatch,
    UnexpectedTensor,
)
from tasks.pets.adapter import Adapter
from tasks.pets.diff import Diff
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask
from tasks.site_ops import SiteOps
from tests.tasks.artifacts import PETS, SHAPE, dense_tensors

ONE_LAYER = BackboneShape(1, 4, 2, 6, 10, 16)

LINEAR = {
    "query": (4, 4), "key": (4, 4), "value": (4, 4),
    "attention_output": (4, 4), "ffn_input": (6, 4), "ffn_output": (4, 6),
}  # fmt: skip

# The tensors of one layer of hidden size 4 and intermediate size 6, written out by hand.
DOCUMENTED: dict[str, dict[str, tuple[int | None, ...]]] = {
    "lora": {
        f"{site}.lora_{half}": shape
        for site, (num_out, num_in) in LINEAR.items()
        for half, shape in (("a", (2, num_in)), ("b", (num_out, 2)))
    },
    "ia3": {"key.scale": (4,), "value.scale": (4,), "ffn_output.scale": (6,)},
    "bitfit": {
        "query.bias": (4,), "key.bias": (4,), "value.bias": (4,), "attention_output.bias": (4,),
        "ffn_input.bias": (6,), "ffn_output.bias": (4,),
        "attention_norm.bias": (4,), "ffn_norm.bias": (4,),
    },
    "pfeiffer": {
        "ffn_output.adapter_down.weight": (2, 4), "ffn_output.adapter_down.bias": (2,),
        "ffn_output.adapter_up.weight": (4, 2), "ffn_output.adapter_up.bias": (4,),
        "ffn_norm.weight": (4,), "ffn_norm.bias": (4,),
    },
    "houlsby": {
        "attention_output.adapter_down.weight": (3, 4), "attention_output.adapter_down.bias": (3,),
        "attention_output.adapter_up.weight": (4, 3), "attention_output.adapter_up.bias": (4,),
        "attention_norm.weight": (4,), "attention_norm.bias": (4,),
        "ffn_output.adapter_down.weight": (3, 4), "ffn_output.adapter_down.bias": (3,),
        "ffn_output.adapter_up.weight": (4, 3), "ffn_output.adapter_up.bias": (4,),
        "ffn_norm.weight": (4,), "ffn_norm.bias": (4,),
    },
    "mask": {f"{site}.mask_gaps": (None,) for site in LINEAR},
    "diff": {
        **{f"{site}.diff_gaps": (None,) for site in LINEAR},
        **{f"{site}.diff_values": (None,) for site in LINEAR},
        **{f"{site}.bias": (num_out,) for site, (num_out, _) in LINEAR.items()},
        "attention_norm.weight": (4,), "attention_norm.bias": (4,),
        "ffn_norm.weight": (4,), "ffn_norm.bias": (4,),
    },
}  # fmt: skip


def own_name(name: str) -> str:
    """Return a pattern of the name that a tensor has in its part, where it is of one."""
    return re.escape(re.sub(r"^parts\.\d+\.", "", name))


@pytest.mark.parametrize("pet", DOCUMENTED)
def test_tensors_are_the_documented_ones(pet: str) -> None:
    """Names and shapes are the format: frozen."""
    specs = PETS[pet].tensor_specs(ONE_LAYER)

    expected = {f"layers.0.{name}": shape for name, shape in DOCUMENTED[pet].items()}
    assert {name: spec.shape for name, spec in specs.items()} == expected


@pytest.mark.parametrize("pet", PETS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_encoded_fits_the_specs(pet: str, dtype: Any) -> None:  # noqa: ANN401 - a Literal
    """Name by name: shape and element type."""
    specs = PETS[pet].tensor_specs(SHAPE)

    stored = PETS[pet].encode(SHAPE, dense_tensors(PETS[pet]), dtype)

    assert stored.keys() == specs.keys()
    for name, spec in specs.items():
        assert stored[name].dtype.name in spec.dtypes
        assert len(stored[name].shape) == len(spec.shape)
        assert stored[name].nbytes <= spec.max_bytes
        if stored[name].dtype.kind == "f" and not name.endswith("diff_values"):
            assert stored[name].dtype == dtype


@pytest.mark.parametrize("pet", PETS)
def test_a_missing_tensor_is_named(pet: str) -> None:
    """Nothing is optional."""
    dense = dense_tensors(PETS[pet])
    gone = sorted(dense)[-1]
    del dense[gone]

    with pytest.raises(MissingTensor, match=own_name(gone)):
        PETS[pet].encode(SHAPE, dense)


@pytest.mark.parametrize("pet", PETS)
def test_a_foreign_tensor_is_named(pet: str) -> None:
    """A recipe that trains more than the kind has would lose it silently."""
    dense = dense_tensors(PETS[pet]) | {"layers.0.pooler.weight": np.zeros((8, 8))}

    with pytest.raises(UnexpectedTensor, match=r"layers\.0\.pooler\.weight"):
        PETS[pet].encode(SHAPE, dense)


@pytest.mark.parametrize("pet", PETS)
def test_a_tensor_of_another_backbone_is_refused(pet: str) -> None:
    """Every tensor's shape is checked."""
    for name in dense_tensors(PETS[pet]):
        dense = dense_tensors(PETS[pet])
        dense[name] = np.concatenate([dense[name], dense[name]])

        with pytest.raises(TensorShapeMismatch, match=own_name(name)):
            PETS[pet].encode(SHAPE, dense)


@pytest.mark.parametrize("pet", [pet for pet in PETS if pet != "mask"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e6])
def test_values_that_float16_cannot_hold_are_refused(pet: str, value: float) -> None:
    """Also 1e6, which would become infinity."""
    for name in dense_tensors(PETS[pet]):
        dense = dense_tensors(PETS[pet])
        dense[name] = dense[name].copy()
        dense[name].flat[0] = value

        with pytest.raises(NonFiniteWeights, match=own_name(name)):
            PETS[pet].encode(SHAPE, dense)


@pytest.mark.parametrize("pet", PETS)
def test_integers_are_refused(pet: str) -> None:
    """A mask is bool, everything else floats."""
    for name in dense_tensors(PETS[pet]):
        dense = dense_tensors(PETS[pet])
        dense[name] = dense[name].astype(np.int64)

        with pytest.raises(TensorTypeMismatch, match=own_name(name)):
            PETS[pet].encode(SHAPE, dense)


@pytest.mark.parametrize(
    "pet",
    [
        Lora(rank=9, alpha=1.0),
        Adapter(placement="houlsby", bottleneck=9, activation="gelu"),
    ],
)
def test_a_rank_beyond_the_backbone_is_refused(pet: Lora | Adapter) -> None:
    """The hidden size is 8."""
    with pytest.raises(RankOutOfRange, match="9"):
        pet.tensor_specs(SHAPE)


def test_deltas_that_vanish_in_float16_are_left_out() -> None:
    """1e-9 rounds to 0: a stored position with value 0 would only cost."""
    dense = dense_tensors(Diff(), density=0.0)
    dense["layers.0.query.delta"][0, 3] = 1e-9
    dense["layers.0.query.delta"][0, 5] = 0.5

    stored = Diff().encode(SHAPE, dense)

    assert stored["layers.0.query.diff_gaps"].tolist() == [5]
    assert stored["layers.0.query.diff_values"].tolist() == [0.5]


@settings(deadline=None)
@given(
    st.sampled_from(sorted(PETS)), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 0.5, 1.0])
)
def test_encoding_the_same_twice_gives_the_same_bytes(pet: str, seed: int, density: float) -> None:
    """Deterministic artifacts: one training run, one digest."""
    first, second = (
        PETS[pet].encode(SHAPE, dense_tensors(PETS[pet], seed=seed, density=density))
        for _ in range(2)
    )

    assert {name: values.tobytes() for name, values in first.items()} == {
        name: values.tobytes() for name, values in second.items()
    }


@given(st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_masks_of_any_density_come_back(density: float, seed: int) -> None:
    """Dense mask -> gaps -> positions is the identity."""
    dense: dict[str, NDArray[Any]] = dense_tensors(Mask(), ONE_LAYER, seed=seed, density=density)

    ops = Mask().decode(ONE_LAYER, Mask().encode(ONE_LAYER, dense))

    for site in LINEAR_SITES:
        sparse = ops.get((0, site), SiteOps()).sparse
        found = sparse.flat_indices.tolist() if sparse else []
        assert found == np.flatnonzero(dense[f"layers.0.{site}.dropped"]).tolist()
