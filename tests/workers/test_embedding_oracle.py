"""Embeddings of a real backbone against transformers and PEFT, and what they say of sentences."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import BertModel

from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.importing import ImportOptions, import_checkpoint
from tests.kept_figures import kept_figures
from tests.tasks.importers.sentence_folders import add_modules
from tests.workers.sentences import SENTENCES
from workers.backbone_store import BackboneStore
from workers.local_level import LocalLevel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # PEFT and transformers warn of one another
]
TOLERANCE = 1e-5
PARAPHRASES = (
    ("How do I reset my password?", "I forgot my password and want a new one."),
    ("The train to Vienna leaves at noon.", "At twelve o'clock there is a train to Vienna."),
    ("My dog is afraid of thunder.", "Thunderstorms frighten my dog."),
    ("Please cancel my order from yesterday.", "I no longer want what I ordered yesterday."),
)


@pytest.fixture(scope="module")
def folder(backbones: BackboneStore) -> Path:
    """The backbone that sentence-transformers' all-MiniLM-L6-v2 is."""
    return backbones.fetch("minilm-l6")


@pytest.fixture(scope="module")
def local(folder: Path) -> Iterator[LocalLevel]:
    """Its level, with two compute threads."""
    level = LocalLevel(folder, threads=2, figures_file=kept_figures())
    yield level
    level.close()


def served(
    local: LocalLevel, checkpoint: Path, folder: Path, task: Path, options: ImportOptions
) -> tuple[list[NDArray[np.float32]], float]:
    """Import a checkpoint and answer all sentences in one batch; return the confidence, too."""
    artifact = import_checkpoint(checkpoint, BackboneTensors(folder), options).write(
        task, name="sentences"
    )
    loaded = local.load(artifact, 0)
    texts = [*SENTENCES, *(text for pair in PARAPHRASES for text in pair)]
    answered = local.run([(loaded, text) for text in texts])
    vectors = []
    for found in answered:
        assert found.answer.embedding is not None
        vectors.append(np.array(found.answer.embedding, np.float32))
    return vectors, min(found.confidence for found in answered)


def expected(model: torch.nn.Module, folder: Path) -> list[NDArray[np.float32]]:
    """Return the mean-pooled vectors of length 1 that transformers gives, a row at a time."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    model.train(False)
    vectors = []
    for text in (*SENTENCES, *(text for pair in PARAPHRASES for text in pair)):
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.inference_mode():
            states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        vectors.append(functional.normalize(states.mean(1))[0].numpy())
    return vectors


@pytest.fixture(scope="module")
def as_published(
    local: LocalLevel, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[NDArray[np.float32]], float]:
    """The vectors of the model as sentence-transformers publishes it."""
    base = tmp_path_factory.mktemp("published")
    checkpoint = add_modules(shutil.copytree(folder, base / "all-minilm-l6-v2"))
    sizes = json.loads((folder / "config.json").read_text())
    pooling = {"word_embedding_dimension": sizes["hidden_size"], "pooling_mode_mean_tokens": True}
    add_modules(checkpoint, pooling=pooling, sentence_bert_config={"max_seq_length": 256})
    return served(local, checkpoint, folder, base / "task", ImportOptions())


def test_vectors_are_transformers_mean_pooled_and_normalised_ones(
    as_published: tuple[list[NDArray[np.float32]], float], folder: Path
) -> None:
    """Of the backbone itself, for which nothing is stored."""
    vectors, confidence = as_published

    theirs = expected(BertModel.from_pretrained(folder), folder)

    assert [vector.shape for vector in vectors] == [vector.shape for vector in theirs]
    distances = [np.abs(a - b).max() for a, b in zip(vectors, theirs, strict=True)]
    assert max(distances) < TOLERANCE
    assert confidence == 1.0


def test_paraphrases_are_nearer_than_unrelated_sentences(
    as_published: tuple[list[NDArray[np.float32]], float],
) -> None:
    """Every pair of paraphrases, than any two sentences of different pairs."""
    vectors = np.stack(as_published[0][len(SENTENCES) :])
    cosines = vectors @ vectors.T
    pair = np.arange(len(vectors)) // 2

    within = [cosines[2 * i, 2 * i + 1] for i in range(len(PARAPHRASES))]
    across = cosines[pair[:, None] != pair[None]]

    assert np.abs(np.diag(cosines) - 1).max() < TOLERANCE
    assert min(within) > across.max() + 0.1, (within, across.max())


def test_a_lora_for_feature_extraction_is_served_as_peft_serves_it(
    local: LocalLevel, folder: Path, tmp_path: Path
) -> None:
    """On the same backbone, with trained-looking factors."""
    config = peft.LoraConfig(
        task_type="FEATURE_EXTRACTION", r=8, target_modules=["query", "value", "dense"],
        exclude_modules=["pooler.dense"],
    )  # fmt: skip
    model = peft.get_peft_model(BertModel.from_pretrained(folder), config)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.03)
    model.save_pretrained(str(tmp_path / "peft"))
    options = ImportOptions(pooling="mean", normalise=True, dtype="float32")

    vectors, _ = served(local, tmp_path / "peft", folder, tmp_path / "task", options)

    theirs, plain = (
        expected(found, folder) for found in (model, BertModel.from_pretrained(folder))
    )
    distances = [np.abs(a - b).max() for a, b in zip(vectors, theirs, strict=True)]
    effects = [np.abs(a - b).max() for a, b in zip(vectors, plain, strict=True)]
    assert max(distances) < TOLERANCE
    assert min(effects) > 100 * TOLERANCE
