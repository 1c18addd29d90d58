"""The real MPNet against transformers; 438 MB, so only where it was fetched already."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from tests.kept_figures import kept_figures
from tests.workers.dense_reference import (
    hidden_states,
    merged_model,
    plain_model,
    reference_logits,
)
from tests.workers.pets import identity_task, random_task
from tests.workers.sentences import SENTENCES
from workers.backbone import Backbone
from workers.backbone_store import BackboneStore, find
from workers.engine import Engine, EngineRow
from workers.errors import BackboneMissingError

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def mpnet_folder(backbones: BackboneStore) -> Path:
    """The backbone's folder; its tests are skipped where there is none."""
    try:
        return find("mpnet-base", backbones.models_dir)
    except BackboneMissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def mpnet(mpnet_folder: Path) -> Engine:
    """An engine on it."""
    return Engine(Backbone.load(mpnet_folder), threads=2, figures_file=kept_figures())


@pytest.fixture(scope="module")
def plain(mpnet_folder: Path) -> PreTrainedModel:
    """The backbone as transformers runs it."""
    return plain_model(mpnet_folder)


@pytest.fixture(scope="module")
def token_rows(mpnet_folder: Path) -> list[NDArray[np.int64]]:
    """Token ids of real sentences and of a pair."""
    tokenizer = Tokenizer.from_file(str(mpnet_folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    encoded = [tokenizer.encode(text) for text in SENTENCES]
    encoded.append(tokenizer.encode(SENTENCES[3], SENTENCES[9]))
    return [np.array(row.ids, dtype=np.int64) for row in encoded]


def test_the_fetched_mpnet_is_the_pinned_one(backbones: BackboneStore, mpnet_folder: Path) -> None:
    """Against the digests of the catalogue."""
    assert mpnet_folder.name == "mpnet-base"
    assert backbones.verify("mpnet-base").shape.max_positions == 512


@pytest.mark.parametrize("takes_pair", [False, True])
def test_hidden_states_equal_those_of_transformers(
    mpnet: Engine, plain: PreTrainedModel, token_rows: list[NDArray[np.int64]], takes_pair: bool
) -> None:
    """Real sentences, a pair, and a row as long as the position table allows."""
    task = identity_task(mpnet, takes_pair=takes_pair)
    rows = [*token_rows, np.random.default_rng(0).integers(1000, 30000, 512)]

    states = mpnet.run([EngineRow(task, ids) for ids in rows])

    distances = [
        float(np.abs(found - hidden_states(plain, ids).numpy()).max())
        for found, ids in zip(states, rows, strict=True)
    ]
    assert max(distances) < TOLERANCE


@pytest.mark.parametrize("variant", ["lora", "houlsby"])
def test_logits_equal_those_of_the_merged_model(
    mpnet: Engine, plain: PreTrainedModel, token_rows: list[NDArray[np.int64]], variant: str
) -> None:
    """A low-rank and a bottleneck PET."""
    task = random_task(variant, mpnet.backbone.shape)
    model = merged_model(plain, task)

    logits = mpnet.run([EngineRow(task.load(mpnet), ids) for ids in token_rows])

    for found, ids in zip(logits, token_rows, strict=True):
        assert np.abs(found - reference_logits(model, task, ids)).max() < 2e-5
