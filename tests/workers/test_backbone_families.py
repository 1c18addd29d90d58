"""Each family of backbones against transformers: the plain model, and PETs on it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from gpu_ops.varlen_attention import varlen_attention
from tasks.backbone_shape import read_shape
from tests.kept_figures import kept_figures
from tests.workers.dense_reference import (
    hidden_states,
    merged_model,
    plain_model,
    reference_logits,
)
from tests.workers.pets import PAPERS_PETS, identity_task, random_task
from tests.workers.tiny_models import CONFIGS, FAMILIES, PAIRS_HAVE_TYPES, save_random
from workers.backbone import Backbone
from workers.encoder import Encoder
from workers.engine import Engine, EngineRow
from workers.errors import RowError
from workers.relative_attention import relative_buckets

TOLERANCE = 1e-5
_FIRST_WORD, _SEPARATOR = 6, 5
"""Ids of no special meaning in any of the models, and one that stands for their separator."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A model of transformers and an engine on the same weights."""

    plain: PreTrainedModel
    engine: Engine


@pytest.fixture(scope="module", params=CONFIGS)
def any_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Every tiny model in turn."""
    return load_pair(save_random(AutoModel, request.param, tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module", params=FAMILIES)
def family_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A tiny model of every family in turn."""
    return load_pair(save_random(AutoModel, request.param, tmp_path_factory.mktemp("model")))


def load_pair(folder: Path) -> Pair:
    """Load a folder with transformers and with the engine."""
    return Pair(
        plain_model(folder), Engine(Backbone.load(folder), threads=1, figures_file=kept_figures())
    )


def test_bfloat16_gives_the_same_states_but_for_rounding(any_model: Pair) -> None:
    """Relative attention, projected embeddings and every family's order of norms among them."""
    both = Engine(
        any_model.engine.backbone,
        threads=1,
        precisions=("float32", "bfloat16"),
        figures_file=kept_figures(),
    )
    task = identity_task(both)
    full, rounded = both.run(
        [
            EngineRow(replace(task, precision=precision), words(both, 7))
            for precision in ("float32", "bfloat16")
        ]
    )

    assert 0 < distance(rounded, full) < 0.05 * full.std()


def words(engine: Engine, num_tokens: int, seed: int = 0) -> NDArray[np.int64]:
    """Return ids of words."""
    rng = np.random.default_rng([seed, num_tokens])
    return rng.integers(_FIRST_WORD, engine.backbone.shape.vocab_size, num_tokens)


def distance(found: NDArray[np.float32], expected: NDArray[np.float32] | torch.Tensor) -> float:
    """Return the largest difference."""
    assert found.shape == tuple(expected.shape)
    return float(np.abs(found - np.asarray(expected)).max())


def test_hidden_states_equal_those_of_transformers(any_model: Pair) -> None:
    """Rows from one token to the longest that the position table has room for, one batch."""
    engine = any_model.engine
    task = identity_task(engine)
    longest = engine.backbone.shape.max_positions
    rows = [words(engine, num_tokens) for num_tokens in (5, 1, longest, 2, 17, longest - 1)]

    states = engine.run([EngineRow(task, ids) for ids in rows])

    for found, ids in zip(states, rows, strict=True):
        expected = hidden_states(any_model.plain, ids)
        assert 0.3 < expected.std() < 3
        assert distance(found, expected) < TOLERANCE


def test_rows_of_any_order_of_lengths(any_model: Pair) -> None:
    """A short row, the longest, and the short one again, each a batch of its own."""
    engine = any_model.engine
    task = identity_task(engine)

    for num_tokens in (3, engine.backbone.shape.max_positions, 3):
        ids = words(engine, num_tokens)
        (found,) = engine.run([EngineRow(task, ids)])
        assert distance(found, hidden_states(any_model.plain, ids)) < TOLERANCE


def test_a_row_longer_than_the_position_table_is_refused(any_model: Pair) -> None:
    """As many tokens as transformers has positions for, and not one more."""
    config = any_model.plain.config
    takes_padding = config.model_type in ("roberta", "mpnet")
    padding_rows = config.pad_token_id + 1 if takes_padding else 0
    engine = any_model.engine
    longest = engine.backbone.shape.max_positions

    assert longest == config.max_position_embeddings - padding_rows
    with pytest.raises(RowError, match=f"expected 1 to {longest} tokens"):
        engine.run([EngineRow(identity_task(engine), words(engine, longest + 1))])


def test_tasks_read_the_same_shape_as_the_engine(tmp_path: Path) -> None:
    """What a task is validated against is what a worker runs."""
    for variant in CONFIGS:
        folder = save_random(AutoModel, variant, tmp_path / variant)
        assert read_shape(folder) == Backbone.load(folder).shape


@pytest.mark.parametrize("any_model", PAIRS_HAVE_TYPES, indirect=True)
def test_pairs_of_families_with_a_second_type(any_model: Pair) -> None:
    """`[CLS] a [SEP] b [SEP]`: b has the second type where the model has one."""
    engine = any_model.engine
    first, second = words(engine, 7), words(engine, 5)
    ids = np.array([3, *first, _SEPARATOR, *second, _SEPARATOR])
    types = np.array([0] * 9 + [1] * 6)

    (found,) = engine.run([EngineRow(identity_task(engine, takes_pair=True), ids)])

    assert distance(found, hidden_states(any_model.plain, ids, types)) < TOLERANCE
    assert distance(found, hidden_states(any_model.plain, ids)) > 1000 * TOLERANCE


@pytest.mark.parametrize("any_model", sorted({*CONFIGS} - {*PAIRS_HAVE_TYPES}), indirect=True)
def test_pairs_of_families_without_a_second_type(any_model: Pair) -> None:
    """`<s> a </s></s> b </s>`, or a table of one type: all tokens have the same."""
    engine = any_model.engine
    first, second = words(engine, 7), words(engine, 5)
    ids = np.array([0, *first, _SEPARATOR, _SEPARATOR, *second, _SEPARATOR])

    (found,) = engine.run([EngineRow(identity_task(engine, takes_pair=True), ids)])

    assert distance(found, hidden_states(any_model.plain, ids)) < TOLERANCE


@pytest.mark.parametrize("variant", PAPERS_PETS)
def test_logits_equal_those_of_the_merged_model(family_model: Pair, variant: str) -> None:
    """Each kind of PET at its places in each family's layers."""
    engine = family_model.engine
    task = random_task(variant, engine.backbone.shape)
    model = merged_model(family_model.plain, task)
    loaded = task.load(engine)
    rows = [words(engine, num_tokens) for num_tokens in (1, 12, 30)]

    logits = engine.run([EngineRow(loaded, ids) for ids in rows])

    for found, ids in zip(logits, rows, strict=True):
        assert distance(found, reference_logits(model, task, ids)) < 2 * TOLERANCE
        plain = reference_logits(family_model.plain, task, ids)
        assert distance(found, plain) > 1000 * TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_with_a_head_is_the_same_backbone(family: str, tmp_path: Path) -> None:
    """The names then have the family's prefix; the head is not read."""
    folder = save_random(AutoModelForSequenceClassification, family, tmp_path)
    stored = load_file(folder / "model.safetensors")
    assert f"{family}.embeddings.word_embeddings.weight" in stored

    pair = load_pair(folder)

    ids = words(pair.engine, 9)
    (found,) = pair.engine.run([EngineRow(identity_task(pair.engine), ids)])
    assert distance(found, hidden_states(pair.plain, ids)) < TOLERANCE


def test_the_norms_of_old_checkpoints_have_other_names(tmp_path: Path) -> None:
    """`gamma` and `beta`, as in the checkpoints that were converted from the first BERT."""
    folder = save_random(AutoModelForSequenceClassification, "bert", tmp_path)
    file = folder / "model.safetensors"
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in load_file(file).items()
    }
    expected = Backbone.load(folder)
    save_file(renamed, file)
    assert "bert.encoder.layer.1.output.LayerNorm.gamma" in renamed

    found = Backbone.load(folder)

    assert found.norms.keys() == expected.norms.keys()
    for place, norm in found.norms.items():
        assert all(map(torch.equal, norm, expected.norms[place]))
    assert all(map(torch.equal, found.embeddings.norm, expected.embeddings.norm))


@pytest.mark.parametrize("any_model", ["mpnet", "mpnet-long"], indirect=True)
@pytest.mark.parametrize("compiled", [True, False])
def test_a_prompt_behind_the_embeddings_comes_on_top_of_all_positions(
    any_model: Pair, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So rows have more tokens than positions, and distances beyond those of rows without one."""
    engine = any_model.engine
    encoder = engine.encoders["float32"]
    assert isinstance(encoder, Encoder)
    if not compiled:
        plain_attention = replace(encoder.operators, attention=varlen_attention)
        monkeypatch.setattr(encoder, "operators", plain_attention)
    dense = random_task("prompt-hidden", engine.backbone.shape)
    virtual = torch.from_numpy(dense.dense["embeddings.prompt"])
    ids = words(engine, engine.backbone.shape.max_positions)

    (found,) = engine.run([EngineRow(dense.load(engine), ids)])

    plain: Any = any_model.plain
    with torch.inference_mode():
        embedded = plain.embeddings(torch.from_numpy(ids)[None])
        states = plain.encoder(torch.cat([virtual[None], embedded], dim=1))[0][0]
    own = states[len(virtual) :].mean(0).numpy()
    assert distance(found, own @ dense.head_weight.T + dense.head_bias) < TOLERANCE


def test_relative_distances_fall_into_the_buckets_of_transformers() -> None:
    """Every distance up to far beyond the last bucket's border."""
    distances = torch.arange(-2000, 2001)

    found = relative_buckets(distances, 32)

    bucket: Any = MPNetEncoder.relative_position_bucket
    assert torch.equal(found, bucket(distances))
    # A distance of 0 counts as a key before the query, so that of the other way is never used.
    assert sorted(set(found.tolist())) == [*range(16), *range(17, 32)]
