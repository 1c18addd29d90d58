"""The engine against transformers models with the PET merged in, on real weights and sentences."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from messages.task_event import TaskKind
from tasks.description import Pooling
from tests.workers.dense_reference import (
    hidden_states,
    merged_model,
    plain_model,
    reference_logits,
)
from tests.workers.pets import (
    EMBEDDING_HEADS,
    OTHER_PETS,
    PAPERS_PETS,
    PETS,
    identity_task,
    random_embedding,
    random_task,
)
from tests.workers.sentences import SENTENCES
from workers.backbone_store import BackboneStore
from workers.engine import Engine, EngineRow
from workers.loaded_task import LoadedTask
from workers.task_ops import ProductOps

TOLERANCE = 2e-5
PLAIN_TOLERANCE = 1e-5


@pytest.fixture(scope="session")
def plain(backbone_folder: Path) -> PreTrainedModel:
    """The backbone as transformers runs it."""
    return plain_model(backbone_folder)


@pytest.fixture(scope="session")
def small_plain(backbones: BackboneStore) -> PreTrainedModel:
    """The small backbone as transformers runs it."""
    return plain_model(backbones.fetch("minilm-l3"))


@pytest.fixture(scope="session")
def tokenizer(backbone_folder: Path) -> Tokenizer:
    """The backbone's own tokenizer, neither cutting nor padding."""
    tokenizer = Tokenizer.from_file(str(backbone_folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@pytest.fixture(scope="session")
def token_rows(tokenizer: Tokenizer) -> list[NDArray[np.int64]]:
    """Token ids of the real sentences."""
    return [np.array(tokenizer.encode(text).ids, dtype=np.int64) for text in SENTENCES]


@pytest.mark.parametrize("variant", PAPERS_PETS)
def test_logits_equal_those_of_the_merged_model(
    engine: Engine, plain: PreTrainedModel, token_rows: list[NDArray[np.int64]], variant: str
) -> None:
    """The papers' kinds on each backbone: within 2e-5 of the merged dense model."""
    _check_parity(engine, plain, token_rows, variant)


@pytest.mark.parametrize("variant", OTHER_PETS)
def test_logits_of_every_other_kind_and_option_equal_those_of_the_dense_model(
    small_engine: Engine,
    small_plain: PreTrainedModel,
    token_rows: list[NDArray[np.int64]],
    variant: str,
) -> None:
    """Each option of each kind, on the small backbone."""
    _check_parity(small_engine, small_plain, token_rows, variant)


def _check_parity(
    engine: Engine, plain: PreTrainedModel, token_rows: list[NDArray[np.int64]], variant: str
) -> None:
    """All sentences in one batch against the dense model, one row at a time."""
    task = random_task(variant, engine.backbone.shape)
    loaded = task.load(engine)
    model = merged_model(plain, task)

    logits = engine.run([EngineRow(loaded, ids) for ids in token_rows])

    expected = [reference_logits(model, task, ids) for ids in token_rows]
    assert max(_distances(logits, expected)) < TOLERANCE


@pytest.mark.parametrize("variant", PETS)
def test_every_op_of_a_task_moves_the_logits(
    small_engine: Engine, token_rows: list[NDArray[np.int64]], variant: str
) -> None:
    """Dropping any one op of any product changes logits by far more than the parity allows."""
    engine = small_engine
    loaded = random_task(variant, engine.backbone.shape).load(engine)
    rows = token_rows[1:12:5]
    whole = engine.run([EngineRow(loaded, ids) for ids in rows])

    effects = {
        what: max(_distances(engine.run([EngineRow(crippled, r) for r in rows]), whole))
        for what, crippled in _without_each_op(loaded)
    }

    assert effects
    assert min(effects.values()) > 20 * TOLERANCE, effects


def test_plain_backbone_equals_transformers(
    engine: Engine, plain: PreTrainedModel, token_rows: list[NDArray[np.int64]]
) -> None:
    """Without a PET, each token's hidden state is that of transformers' model."""
    loaded = identity_task(engine)

    states = engine.run([EngineRow(loaded, ids) for ids in token_rows])

    expected = [hidden_states(plain, ids).numpy() for ids in token_rows]
    assert max(_distances(states, expected)) < PLAIN_TOLERANCE


@pytest.mark.parametrize(
    ("kind", "pooling", "num_labels"),
    [
        ("single_label", "cls", 151),
        ("multi_label", "mean", 62),
        ("regression", "mean", 1),
        ("tagging", "none", 13),
    ],
)
def test_every_kind_of_head(
    engine: Engine,
    plain: PreTrainedModel,
    token_rows: list[NDArray[np.int64]],
    kind: TaskKind,
    pooling: Pooling,
    num_labels: int,
) -> None:
    """Heads of any width, on pooled rows or on every token, equal the reference."""
    task = random_task(
        "lora", engine.backbone.shape, kind=kind, pooling=pooling, num_labels=num_labels
    )
    model = merged_model(plain, task)

    logits = engine.run([EngineRow(task.load(engine), ids) for ids in token_rows])

    expected = [reference_logits(model, task, ids) for ids in token_rows]
    assert [found.shape for found in logits] == [found.shape for found in expected]
    assert max(_distances(logits, expected)) < TOLERANCE


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("head", EMBEDDING_HEADS)
def test_every_head_of_an_embedding(
    small_engine: Engine,
    small_plain: PreTrainedModel,
    token_rows: list[NDArray[np.int64]],
    head: str,
    pooling: Pooling,
) -> None:
    """Projections, activations and the pooled vector itself equal the reference."""
    task = random_embedding(head, small_engine.backbone.shape, pooling=pooling)
    model = merged_model(small_plain, task)

    vectors = small_engine.run([EngineRow(task.load(small_engine), ids) for ids in token_rows])

    expected = [reference_logits(model, task, ids) for ids in token_rows]
    assert [found.shape for found in vectors] == [found.shape for found in expected]
    assert max(_distances(vectors, expected)) < TOLERANCE


def test_an_embedding_of_the_bare_pooled_vector_holds_no_head(small_engine: Engine) -> None:
    """No identity matrix stands in memory: only the PET's own tensors."""
    bare, projected = (
        random_embedding(head, small_engine.backbone.shape) for head in ("identity", "projection")
    )

    saved = projected.load(small_engine).num_bytes - bare.load(small_engine).num_bytes

    assert saved == projected.head_weight.nbytes + projected.head_bias.nbytes


def test_pairs_use_the_second_token_type(
    engine: Engine, plain: PreTrainedModel, tokenizer: Tokenizer
) -> None:
    """The second text of a pair has the embeddings that transformers gives it."""
    task = random_task("bitfit", engine.backbone.shape, takes_pair=True)
    model = merged_model(plain, task)
    encoded = tokenizer.encode(SENTENCES[3], SENTENCES[9])
    ids, types = (np.array(part, dtype=np.int64) for part in (encoded.ids, encoded.type_ids))

    (logits,) = engine.run([EngineRow(task.load(engine), ids)])

    assert types.any()
    assert np.abs(logits - reference_logits(model, task, ids, types)).max() < TOLERANCE
    assert np.abs(logits - reference_logits(model, task, ids)).max() > 20 * TOLERANCE


@pytest.mark.parametrize("num_tokens", [1, 2, 17, 128, 511, 512])
@pytest.mark.parametrize("variant", ["mask", "houlsby"])
def test_rows_of_any_length(
    engine: Engine, plain: PreTrainedModel, variant: str, num_tokens: int
) -> None:
    """One token, and as many as the backbone has positions for."""
    task = random_task(variant, engine.backbone.shape)
    model = merged_model(plain, task)
    ids = np.random.default_rng(num_tokens).integers(1000, 30000, num_tokens)

    (logits,) = engine.run([EngineRow(task.load(engine), ids)])

    assert np.abs(logits - reference_logits(model, task, ids)).max() < TOLERANCE


def _distances(
    found: list[NDArray[np.float32]], expected: list[NDArray[np.float32]]
) -> list[float]:
    return [float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True)]


def _without_each_op(task: LoadedTask) -> Iterator[tuple[str, LoadedTask]]:
    """Yield the task without one op, for each op of each product and norm."""
    for place, ops in task.ops.products.items():
        for field in fields(ProductOps):
            if getattr(ops, field.name) is not None:
                products = {**task.ops.products, place: replace(ops, **{field.name: None})}
                yield (
                    f"{place} {field.name}",
                    replace(task, ops=replace(task.ops, products=products)),
                )
    for norm_place in task.ops.norms:
        norms = {key: norm for key, norm in task.ops.norms.items() if key != norm_place}
        yield f"{norm_place}", replace(task, ops=replace(task.ops, norms=norms))
    for layer in task.ops.prefixes:
        prefixes = {key: prefix for key, prefix in task.ops.prefixes.items() if key != layer}
        yield f"prefix {layer}", replace(task, ops=replace(task.ops, prefixes=prefixes))
    if task.ops.embeddings is not None:
        yield "embeddings", replace(task, ops=replace(task.ops, embeddings=None))
