"""Parts of a combined PET: their ops join place by place, or are refused with the reason."""

import numpy as np
import pytest

from tasks.backbone_shape import Site
from tasks.errors import PartsConflict
from tasks.pets.adapter import Adapter
from tasks.pets.bitfit import BitFit
from tasks.pets.combined import Combined
from tasks.pets.diff import Diff
from tasks.pets.dora import Dora
from tasks.pets.ia3 import Ia3
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask
from tasks.pets.pet import Pet
from tasks.pets.prefix import Prefix
from tasks.pets.prompt import Prompt
from tasks.site_ops import SiteOps
from tests.tasks.artifacts import SHAPE, dense_tensors

ADAPTER = Adapter(placement="pfeiffer", bottleneck=2, activation="relu")


def decoded(pet: Pet) -> dict[tuple[int, Site], SiteOps]:
    """Return a PET's ops after its way through the stored form."""
    return pet.decode(SHAPE, pet.encode(SHAPE, dense_tensors(pet)))


def test_biases_add_up_and_factors_lie_side_by_side() -> None:
    """Two LoRAs of one place are one of both ranks, with the scales multiplied in."""
    pet = Combined(
        parts=(
            Lora(rank=2, alpha=6.0, sites=("query",), has_bias=True),
            BitFit(),
            Lora(rank=1, alpha=4.0, sites=("query",)),
        )
    )
    tensors = pet.encode(SHAPE, dense_tensors(pet), "float32")

    ops = pet.decode(SHAPE, tensors)[1, "query"]

    first, second = (
        [tensors[f"parts.{part}.layers.1.query.lora_{half}"] for half in "ab"] for part in (0, 2)
    )
    assert ops.low_rank is not None
    assert ops.bias is not None
    np.testing.assert_allclose(
        ops.low_rank.scale * ops.low_rank.b @ ops.low_rank.a,
        3.0 * first[1] @ first[0] + 4.0 * second[1] @ second[0],
        rtol=1e-5,
        atol=1e-7,
    )
    np.testing.assert_allclose(
        ops.bias,
        3.0 * tensors["parts.0.layers.1.query.lora_bias"] + tensors["parts.1.layers.1.query.bias"],
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ((ADAPTER, ADAPTER), "adapter at ffn_output"),
        ((Mask(), Diff()), "sparse at query"),
        ((Ia3(), Ia3()), "output_scale at key"),
        ((Prefix(num_tokens=1), Prefix(num_tokens=2)), "prefix at attention"),
        ((Prompt(num_tokens=1), Prompt(num_tokens=2)), "prompt at embeddings"),
        (
            (Lora(rank=1, alpha=1.0, gated=True), Lora(rank=1, alpha=1.0)),
            "low_rank at query",
        ),
        ((Dora(rank=1, alpha=1.0, sites=("key",)), Ia3()), "DoRA"),
    ],
)
def test_what_cannot_be_joined_is_refused(parts: tuple[Pet, ...], what: str) -> None:
    """With the op and the place."""
    pet = Combined.model_construct(parts=parts)

    with pytest.raises(PartsConflict, match=what):
        decoded(pet)


def test_positions_that_parts_reserve_add_up() -> None:
    """A prompt and a prefix that moves positions both take room from the row."""
    pet = Combined(parts=(Prompt(num_tokens=3), Prefix(num_tokens=4, moves_positions=True)))

    assert pet.reserved_positions() == 7
    assert decoded(pet)[0, "embeddings"].position_offset == 4
