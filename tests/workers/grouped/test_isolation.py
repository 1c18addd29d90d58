"""A row's answer is its own: what is not finite in one task reaches no other task's rows."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModel

from tests.gpu_ops.grouped.backend import emulated_backend
from tests.workers.grouped.ways import Way, distance, on_device_engine, token_ids
from tests.workers.pets import PAPERS_PETS, random_task
from tests.workers.tiny_models import SIZES_IN_PACKS, save_random
from workers.backbone import Backbone
from workers.engine import Engine, EngineRow
from workers.grouped.on_device import OnDevice
from workers.loaded_task import LoadedTask
from workers.task_tensors import replaced

WITH_FLOATS = [variant for variant in PAPERS_PETS if variant != "mask"]
LOOPED = ["dora", "prefix", "adapter-norms", "unipelt", "full-dense"]


def broken(task: LoadedTask) -> LoadedTask:
    """Return the task with NaN for every float of its PET, which no store would take."""
    pet = replaced(
        task.ops, lambda t: torch.full_like(t, torch.nan) if t.is_floating_point() else t
    )
    return replace(task, ops=replace(pet, head=task.ops.head))


def broken_head(task: LoadedTask) -> LoadedTask:
    """Return the task with NaN in its output layer."""
    head = task.ops.head
    assert head.weight is not None
    weight = torch.full_like(head.weight, torch.nan)
    return replace(task, ops=replace(task.ops, head=head._replace(weight=weight)))


@pytest.mark.parametrize("num_tokens", [3, 70])
@pytest.mark.parametrize("variant", [*WITH_FLOATS, *LOOPED])
def test_a_broken_task_breaks_no_other(
    way: Way, small_engine: Engine, variant: str, num_tokens: int
) -> None:
    """Beside it, in the same operators and tiles of like sizes; and in its slot when it is gone."""
    shape = small_engine.backbone.shape
    bad = broken(way.load(random_task(variant, shape, seed=9)))
    tasks = [random_task(v, shape, seed=seed) for seed, v in enumerate((variant, "mask", variant))]
    good = [way.load(task) for task in tasks]
    ids = token_ids(5, num_tokens)
    expected = small_engine.run([EngineRow(task.load(small_engine), ids) for task in tasks])

    found = way.engine.run([EngineRow(task, ids) for task in (good[0], bad, *good[1:])])
    assert np.isnan(found[1]).all()
    del bad
    gc.collect()
    newcomer = way.engine.run([EngineRow(way.load(tasks[0]), ids)])

    for logits, own in zip(
        (found[0], *found[2:], *newcomer), [*expected, expected[0]], strict=True
    ):
        assert distance(logits, own) < way.float32_tolerance


def test_a_broken_head_breaks_no_other(way: Way, small_engine: Engine) -> None:
    """All heads are one launch."""
    task = random_task("lora", small_engine.backbone.shape)
    good, bad = way.load(task), broken_head(way.load(task))
    ids = token_ids(5, 9)
    (expected,) = small_engine.run([EngineRow(task.load(small_engine), ids)])

    before, own, after = way.engine.run([EngineRow(one, ids) for one in (good, bad, good)])

    assert np.isnan(own).all()
    assert max(distance(before, expected), distance(after, expected)) < way.float32_tolerance


def test_a_row_that_overflows_leaves_its_neighbours_alone(way: Way, small_engine: Engine) -> None:
    """Rows of the same task too: a value that only some tokens have is not finite."""
    task = random_task("full-sparse", small_engine.backbone.shape)
    loaded = way.load(task)
    plain_ids, bad_ids = token_ids(1, 8), token_ids(2, 8)
    infinite = with_infinite_word(loaded, int(bad_ids[3]))
    (expected,) = small_engine.run([EngineRow(task.load(small_engine), plain_ids)])

    rows = [EngineRow(infinite, ids) for ids in (plain_ids, bad_ids, plain_ids)]
    before, own, after = way.engine.run(rows)

    assert not np.isfinite(own).any()
    assert max(distance(before, expected), distance(after, expected)) < way.float32_tolerance


def with_infinite_word(task: LoadedTask, word: int) -> LoadedTask:
    """Return the task with one word whose embedding is infinite."""
    embeddings = task.ops.embeddings
    assert embeddings is not None
    assert embeddings.word_rows is not None
    assert embeddings.word_deltas is not None
    # Before a delta that the word may have: the first one counts.
    rows = torch.cat([embeddings.word_rows.new_tensor([word]), embeddings.word_rows])
    infinite = torch.full_like(embeddings.word_deltas[:1], torch.inf)
    rows, order = rows.sort(stable=True)
    deltas = torch.cat([infinite, embeddings.word_deltas])[order]
    changed = replace(embeddings, word_rows=rows, word_deltas=deltas)
    return replace(task, ops=replace(task.ops, embeddings=changed))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny random BERT."""
    folder = tmp_path_factory.mktemp("bert")
    return Backbone.load(save_random(AutoModel, "bert", folder, sizes=SIZES_IN_PACKS))


@pytest.mark.parametrize("variant", WITH_FLOATS)
def test_emulated_kernels_keep_them_apart_too(tiny: Backbone, variant: str) -> None:
    """In tiles that are not full, and beside tasks of the same pools."""
    how = OnDevice(torch.device("cpu"), kernels=emulated_backend(0).kernels)
    engine = on_device_engine(tiny, how, ("float32",))
    tasks = [random_task(v, tiny.shape, seed=n) for n, v in enumerate((variant, "mask", variant))]
    ids = token_ids(5, 7, vocab_size=60)
    good = [EngineRow(task.load(engine), ids) for task in tasks]
    bad = EngineRow(broken(random_task(variant, tiny.shape, seed=9).load(engine)), ids)
    expected = engine.run(good)

    found = engine.run([good[0], bad, *good[1:]])

    assert np.isnan(found[1]).all()
    assert max(map(distance, (found[0], *found[2:]), expected)) < 1e-6
    engine.close()
