"""Names of places in hyperparameters: all layers, one layer, and what they cannot say."""

import pytest
from pydantic import ValidationError

from tasks.errors import SiteNotFound
from tasks.pets.bitfit import BitFit
from tasks.pets.lora import Lora
from tasks.pets.site_names import at, expand, place
from tests.tasks.artifacts import SHAPE


def test_a_site_is_that_of_every_layer_and_a_layer_may_be_named() -> None:
    """`embeddings` is before all layers."""
    assert list(expand(("query", "1.value", "embeddings"), SHAPE)) == [
        (0, "query"), (1, "query"), (1, "value"), (0, "embeddings"),
    ]  # fmt: skip
    assert place(1, "value") == "layers.1.value"
    assert place(0, "embeddings") == "embeddings"


def test_the_name_with_a_layer_goes_before_the_one_without() -> None:
    """In a mapping."""
    pattern = {"query": 3, "1.query": 4}

    assert [at(pattern, layer, "query", 8) for layer in (0, 1)] == [3, 4]
    assert at(pattern, 0, "key", 8) == 8
    assert at(None, 0, "key", 8) == 8


def test_a_layer_that_the_backbone_does_not_have_is_refused() -> None:
    """It has two."""
    with pytest.raises(SiteNotFound, match=r"2\.query names layer 2 of a backbone with 2 layers"):
        Lora(rank=1, alpha=1.0, sites=("2.query",)).tensor_specs(SHAPE)


@pytest.mark.parametrize(
    "names",
    [
        ("query", "query"),
        ("query", "0.query"),
        ("0.query", "query"),
        ("attention_norm",),
        ("01.query",),
        ("-1.query",),
        ("query\n",),
        ("pooler",),
        (),
    ],
)
def test_names_that_say_nothing_or_too_much_are_refused(names: tuple[str, ...]) -> None:
    """Twice the same place, no linear site, a layer that is no plain number, none at all."""
    with pytest.raises(ValidationError):
        Lora(rank=1, alpha=1.0, sites=names)


def test_only_what_has_a_bias_is_a_place_of_biases() -> None:
    """Norms and the embeddings are; attention is not."""
    BitFit(sites=("1.ffn_norm", "embeddings", "key"))
    with pytest.raises(ValidationError):
        BitFit(sites=("attention",))
