"""What a PET does to a layer after its way through bytes is what its paper says, in float64."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.backbone_shape import LINEAR_SITES, NORM_SITES, LinearSite, Site
from tasks.pets.kinds import PET_KINDS
from tasks.site_ops import KroneckerSum, SiteOps
from tests.tasks.artifacts import PETS, SHAPE, dense_tensors

Dense = dict[str, NDArray[Any]]


def stored_ops(pet: str) -> tuple[Dense, dict[tuple[int, Site], SiteOps]]:
    """Return a PET's dense tensors, and its ops after encoding and decoding."""
    dense = dense_tensors(PETS[pet])
    stored = PETS[pet].encode(SHAPE, dense)
    return dense, PETS[pet].decode(SHAPE, stored)


def linear(ops: SiteOps, x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any]) -> NDArray[Any]:
    """Compute a linear site as `tasks.site_ops` defines it."""
    weight = weight.copy()
    if ops.sparse is not None:
        flat = weight.reshape(-1)
        values = ops.sparse.values
        flat[ops.sparse.flat_indices] += (
            -flat[ops.sparse.flat_indices] if values is None else values
        )
    if ops.input_scale is not None:
        x = x * ops.input_scale
    y: NDArray[Any] = x @ weight.T + bias
    if ops.bias is not None:
        y = y + ops.bias
    if ops.low_rank is not None:
        y = y + ops.low_rank.scale * (x @ ops.low_rank.a.T) @ ops.low_rank.b.T
    if ops.output_scale is not None:
        y = y * ops.output_scale
    return y


def layer_inputs(site: LinearSite) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return x, W and b of a site."""
    rng = np.random.default_rng(7)
    num_out, num_in = SHAPE.linear_shape(site)
    return (
        rng.normal(size=(5, num_in)),
        rng.normal(size=(num_out, num_in)),
        rng.normal(size=num_out),
    )


@pytest.mark.parametrize("site", LINEAR_SITES)
@pytest.mark.parametrize("layer", [0, 1])
def test_lora_is_the_merged_weight(layer: int, site: LinearSite) -> None:
    """W + alpha / rank * B A, at every site by default."""
    dense, ops = stored_ops("lora")
    x, weight, bias = layer_inputs(site)
    a, b = (dense[f"layers.{layer}.{site}.lora_{half}"].astype(np.float64) for half in "ab")

    found = linear(ops[layer, site], x, weight, bias)

    np.testing.assert_allclose(found, x @ (weight + 6.0 / 2 * b @ a).T + bias, rtol=1e-6)


def test_lora_acts_on_its_sites_only() -> None:
    """A LoRA of query and value leaves the rest of the layer alone."""
    _, ops = stored_ops("lora-query-value")

    assert set(ops) == {(layer, site) for layer in (0, 1) for site in ("query", "value")}


@pytest.mark.parametrize("site", ["key", "value"])
def test_ia3_scales_keys_and_values_with_their_bias(site: LinearSite) -> None:
    """The output is l * (x W^T + b)."""
    dense, ops = stored_ops("ia3")
    x, weight, bias = layer_inputs(site)

    found = linear(ops[1, site], x, weight, bias)

    expected = dense[f"layers.1.{site}.scale"] * (x @ weight.T + bias)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_ia3_scales_the_input_of_the_last_projection() -> None:
    """(l * gelu(..)) W^T + b, with a vector as long as the intermediate size."""
    dense, ops = stored_ops("ia3")
    x, weight, bias = layer_inputs("ffn_output")

    found = linear(ops[0, "ffn_output"], x, weight, bias)

    expected = (x * dense["layers.0.ffn_output.scale"]) @ weight.T + bias
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("site", LINEAR_SITES)
def test_bitfit_adds_to_every_bias(site: LinearSite) -> None:
    """The sums b + delta, and beta + delta at the norms; gamma is shared."""
    dense, ops = stored_ops("bitfit")
    x, weight, bias = layer_inputs(site)

    found = linear(ops[0, site], x, weight, bias)

    expected = x @ weight.T + bias + dense[f"layers.0.{site}.bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for norm in NORM_SITES:
        np.testing.assert_array_equal(ops[0, norm].norm_bias, dense[f"layers.0.{norm}.bias"])
        assert ops[0, norm].norm_weight is None


@pytest.mark.parametrize("site", LINEAR_SITES)
def test_mask_zeroes_the_dropped_weights(site: LinearSite) -> None:
    """X (M * W)^T + b."""
    dense, ops = stored_ops("mask")
    x, weight, bias = layer_inputs(site)
    kept = ~dense[f"layers.1.{site}.dropped"]
    assert not kept.all()

    found = linear(ops[1, site], x, weight, bias)

    np.testing.assert_allclose(found, x @ (kept * weight).T + bias, rtol=1e-6)


@pytest.mark.parametrize("site", LINEAR_SITES)
def test_diff_adds_to_weights_and_bias(site: LinearSite) -> None:
    """X (W + delta)^T + b + b_t."""
    dense, ops = stored_ops("diff")
    x, weight, bias = layer_inputs(site)
    delta = dense[f"layers.0.{site}.delta"]
    assert np.count_nonzero(delta)

    found = linear(ops[0, site], x, weight, bias)

    expected = x @ (weight + delta).T + bias + dense[f"layers.0.{site}.bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for norm in NORM_SITES:
        np.testing.assert_array_equal(ops[0, norm].norm_weight, dense[f"layers.0.{norm}.weight"])
        np.testing.assert_array_equal(ops[0, norm].norm_bias, dense[f"layers.0.{norm}.bias"])


@pytest.mark.parametrize(
    ("pet", "places"),
    [
        ("houlsby", [("attention_output", "attention_norm"), ("ffn_output", "ffn_norm")]),
        ("pfeiffer", [("ffn_output", "ffn_norm")]),
    ],
)
def test_adapters_sit_where_their_papers_put_them(
    pet: str, places: list[tuple[Site, Site]]
) -> None:
    """Houlsby: after both sub-layers; Pfeiffer: after the second; with the norm behind each."""
    dense, ops = stored_ops(pet)

    assert set(ops) == {(layer, site) for layer in (0, 1) for pair in places for site in pair}
    for site, norm in places:
        adapter = ops[1, site].adapter
        assert adapter is not None
        prefix = f"layers.1.{site}.adapter"
        np.testing.assert_array_equal(adapter.down_weight, dense[f"{prefix}_down.weight"])
        np.testing.assert_array_equal(adapter.down_bias, dense[f"{prefix}_down.bias"])
        np.testing.assert_array_equal(adapter.up_weight, dense[f"{prefix}_up.weight"])
        np.testing.assert_array_equal(adapter.up_bias, dense[f"{prefix}_up.bias"])
        np.testing.assert_array_equal(ops[1, norm].norm_weight, dense[f"layers.1.{norm}.weight"])
        np.testing.assert_array_equal(ops[1, norm].norm_bias, dense[f"layers.1.{norm}.bias"])
        assert adapter.activation == PETS[pet].model_dump()["activation"]


def test_a_compacter_is_left_in_its_factors() -> None:
    """Multiplied out it would be as large as the adapter that it stands for."""
    dense, ops = stored_ops("compacter")
    adapter = ops[1, "ffn_output"].adapter
    assert adapter is not None

    for name, weight in (("down", adapter.down_weight), ("up", adapter.up_weight)):
        prefix = f"layers.1.ffn_output.adapter_{name}"
        assert isinstance(weight, KroneckerSum)
        np.testing.assert_array_equal(weight.rule, dense["compacter.rule"])
        np.testing.assert_array_equal(weight.left, dense[f"{prefix}.left"])
        np.testing.assert_array_equal(weight.right, dense[f"{prefix}.right"])


def test_the_registry_has_every_kind_under_its_own_name() -> None:
    """What `task.json` may say is what the registry knows."""
    assert sorted(PET_KINDS) == [
        "adalora", "adapter", "bitfit", "combined", "compacter", "dense_delta", "diff", "dora",
        "embedding_delta", "ia3", "layer_norm", "lora", "mask", "prefix", "prompt",
    ]  # fmt: skip
    assert all(kind.model_fields["kind"].default == name for name, kind in PET_KINDS.items())


def test_decoded_arrays_cannot_be_changed() -> None:
    """Weights are shared by all rows of a task: a stray write must fail loudly."""
    for pet in PETS:
        _, ops = stored_ops(pet)
        for site_ops in ops.values():
            for array in arrays_of(site_ops):
                assert not array.flags.writeable
                assert array.flags.c_contiguous


def arrays_of(ops: SiteOps) -> list[NDArray[Any]]:
    """Return every array of a site's ops."""
    values: list[object] = [
        ops.bias, ops.input_scale, ops.output_scale, ops.norm_weight, ops.norm_bias,
    ]  # fmt: skip
    if ops.low_rank:
        values += [ops.low_rank.a, ops.low_rank.b]
    if ops.sparse:
        values += [ops.sparse.flat_indices, ops.sparse.values]
    if ops.adapter:
        values += [ops.adapter.down_bias, ops.adapter.up_bias]
        for weight in (ops.adapter.down_weight, ops.adapter.up_weight):
            if isinstance(weight, KroneckerSum):
                values += [weight.rule, weight.left, weight.right]
            else:
                values.append(weight)
    return [value for value in values if isinstance(value, np.ndarray)]


def test_every_kind_is_in_the_examples() -> None:
    """The parametrised tests above see all of them."""
    assert {pet.kind for pet in PETS.values()} == set(PET_KINDS)
