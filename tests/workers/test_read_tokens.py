"""The last layer works on the tokens that are read: of `cls` pooling the first of each row."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from gpu_ops.spans import Span
from tests.workers.dense_reference import merged_model, plain_model, reference_logits
from tests.workers.pets import PETS, random_task
from workers.backbone_store import BackboneStore
from workers.encoder import Encoder
from workers.engine import Engine, EngineRow
from workers.loaded_task import LoadedTask
from workers.packed_batch import PackedBatch, pack
from workers.read_tokens import read_tokens

TOLERANCE = 1e-5
"""Of the largest logit: float32 is as exact as its numbers are small. Measured: 2.6e-6."""
LENGTHS = (5, 33, 1, 16)
GATED_BEHIND_ATTENTION = {"lora-gated", "adapter-norms", "unipelt"}


@pytest.fixture(scope="module")
def small_plain(backbones: BackboneStore) -> PreTrainedModel:
    """The small backbone as transformers runs it."""
    folder: Path = backbones.fetch("minilm-l3")
    return plain_model(folder)


def rows(*lengths: int) -> list[NDArray[np.int64]]:
    """Return token ids."""
    rng = np.random.default_rng(sum(lengths))
    return [rng.integers(1000, 20000, length) for length in lengths]


def packed(engine: Engine, *tasks: LoadedTask) -> PackedBatch:
    """Return a batch of rows of each task, in this order."""
    asked = [EngineRow(task, ids) for task in tasks for ids in rows(*LENGTHS)]
    backbone = engine.backbone
    return pack(asked, range(len(asked)), backbone.shape, backbone.num_token_types)


@pytest.mark.parametrize("variant", PETS)
def test_every_kind_has_the_logits_of_the_dense_model(
    small_engine: Engine, small_plain: PreTrainedModel, variant: str
) -> None:
    """With `cls` pooling, for which other tests look at one kind."""
    task = random_task(variant, small_engine.backbone.shape, pooling="cls")
    model, loaded = merged_model(small_plain, task), task.load(small_engine)

    found = small_engine.run([EngineRow(loaded, ids) for ids in rows(*LENGTHS)])

    for logits, ids in zip(found, rows(*LENGTHS), strict=True):
        expected = reference_logits(model, task, ids)
        scale = max(1.0, np.abs(expected).max())
        assert np.abs(logits - expected).max() < TOLERANCE * scale


@pytest.mark.parametrize("variant", PETS)
def test_only_gates_behind_attention_need_the_other_tokens(
    small_engine: Engine, variant: str
) -> None:
    """They read the mean of a row's tokens; nothing else looks beyond its own."""
    task = random_task(variant, small_engine.backbone.shape, pooling="cls").load(small_engine)
    batch = packed(small_engine, task)

    read = read_tokens(batch, small_engine.backbone.shape.num_layers)

    assert (read is None) == (variant in GATED_BEHIND_ATTENTION)
    if read is not None:
        assert read.batch.row_lens == [1] * len(LENGTHS)
        assert read.tokens[: len(LENGTHS)].tolist() == batch.first_tokens


@pytest.mark.parametrize("pooling", ["mean", "none"])
def test_rows_whose_tokens_are_all_read_stay_as_they_are(
    small_engine: Engine, pooling: str
) -> None:
    """A batch of them is not taken apart."""
    shape = small_engine.backbone.shape
    kind = "tagging" if pooling == "none" else "single_label"
    task = random_task("prompt", shape, kind=kind, pooling=pooling).load(small_engine)  # type: ignore[arg-type]

    assert read_tokens(packed(small_engine, task), shape.num_layers) is None


def test_each_row_of_a_mixed_batch_keeps_what_its_pooling_reads(small_engine: Engine) -> None:
    """Virtual tokens go, spans and own tokens move, and padding fills up to a multiple of 16."""
    shape = small_engine.backbone.shape
    first, prompted = (
        random_task(variant, shape, pooling="cls").load(small_engine)
        for variant in ("lora", "prompt")
    )
    whole = random_task("bitfit", shape).load(small_engine)
    batch = packed(small_engine, first, whole, prompted)

    read = read_tokens(batch, shape.num_layers)

    assert read is not None
    kept, num_whole = read.batch, sum(LENGTHS)
    assert kept.row_lens == [1] * 4 + list(LENGTHS) + [1] * 4
    assert [segment.tokens for segment in kept.segments] == [
        Span(0, 4),
        Span(4, 4 + num_whole),
        Span(4 + num_whole, 8 + num_whole),
    ]
    assert kept.own_tokens is not None
    assert kept.own_tokens.tolist() == list(range(8 + num_whole))
    assert len(read.tokens) % 16 == 0
    assert torch.equal(kept.token_ids, batch.token_ids[read.tokens])
    assert [int(read.tokens[token]) for token in kept.first_tokens] == batch.first_tokens


def test_the_last_layer_multiplies_what_is_read_alone(
    small_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind attention; the layers before it multiply all tokens."""
    encoder = small_engine.encoders["float32"]
    assert isinstance(encoder, Encoder)
    task = random_task("bitfit", small_engine.backbone.shape, pooling="cls").load(small_engine)
    seen: dict[tuple[int, str], int] = {}
    multiply = encoder.products.multiply

    def counted(place: tuple[int, str], x: torch.Tensor, *rest: object) -> torch.Tensor:
        seen[place] = len(x)
        return multiply(place, x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(encoder.products, "multiply", counted)
    small_engine.run([EngineRow(task, ids) for ids in rows(40, 40)])

    assert seen[2, "qkv"] == seen[1, "ffn_output"] == 80
    assert seen[2, "attention_output"] == seen[2, "ffn_input"] == seen[2, "ffn_output"] == 16
