"""Training computes on every family what the engine will: padded rows, pairs, every op's place."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from tasks.training.batches import EncodedRow, collate
from tasks.training.model import load_dense_model
from tests.kept_figures import kept_figures
from tests.workers.pets import random_task
from tests.workers.tiny_models import CONFIGS, PAIRS_HAVE_TYPES, save_random
from workers.backbone import Backbone
from workers.engine import Engine, EngineRow

TOLERANCE = 2e-5
_FIRST_WORD, _SEPARATOR, _FIRST_TOKEN = 6, 5, 3


def pair_row(seed: int, first: int, second: int) -> EncodedRow:
    """Return a pair of random texts of so many words, as a tokenizer of BERT's gives it."""
    words = np.random.default_rng(seed).integers(_FIRST_WORD, 60, first + second).tolist()
    ids = (_FIRST_TOKEN, *words[:first], _SEPARATOR, *words[first:], _SEPARATOR)
    return EncodedRow(ids, (0,) * (first + 2) + (1,) * (second + 1), (0.0,))


@pytest.mark.parametrize("variant", CONFIGS)
def test_the_dense_model_answers_as_the_engine(variant: str, tmp_path: Path) -> None:
    """With a PET that changes every site; rows are padded to each other here and packed there."""
    folder = save_random(AutoModel, variant, tmp_path)
    engine = Engine(Backbone.load(folder), threads=1, figures_file=kept_figures())
    task = random_task("diff", engine.backbone.shape, takes_pair=True)
    model = load_dense_model(folder, len(task.head_bias), task.pooling)
    model.load(task.weights(engine.backbone.shape))
    rows = [pair_row(0, 3, 2), pair_row(1, 12, 21), pair_row(2, 1, 1)]
    loaded = task.load(engine)

    with torch.inference_mode():
        logits = model(collate(rows, "single_label")).numpy()

    expected = engine.run([EngineRow(loaded, np.array(row.token_ids)) for row in rows])
    assert np.abs(logits - np.stack(expected)).max() < TOLERANCE
    assert (engine.backbone.num_token_types > 1) == (variant in PAIRS_HAVE_TYPES)
