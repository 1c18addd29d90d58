"""Rows answered without Kafka: the same tokens, engine and calibration as behind it."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from messages.errors import MessageError
from messages.query import QueryParameters
from messages.truncation import Truncation
from scheduler.tokenisation import BackboneTokenizer
from tasks.artifact import open_artifact
from tests.kept_figures import kept_figures
from tests.workers.sentences import SENTENCES
from workers.backbone_store import BackboneStore
from workers.errors import RowError
from workers.loaded_task import LoadedTask
from workers.local_level import LocalLevel
from workers.row_tokenizer import RowTokenizer

TASKS = Path(__file__).parents[2] / "examples" / "tasks"
HOSTILE = [
    *SENTENCES,
    "[SEP] [CLS] x",
    "\u00e9\u00e8 \U0001f600 \u4f60\u597d",
    "word " * 600,
    "a\x00b",
]


@pytest.fixture(scope="module")
def local(backbones: BackboneStore) -> Iterator[LocalLevel]:
    """The small level."""
    level = LocalLevel(backbones.fetch("minilm-l3"), threads=1, figures_file=kept_figures())
    yield level
    level.close()


@pytest.fixture(scope="module")
def banking(local: LocalLevel) -> LoadedTask:
    """A committed task."""
    return local.load(open_artifact(TASKS / "banking77"), 0)


@pytest.mark.parametrize("max_tokens", [8, 64, 512])
@pytest.mark.parametrize("truncation", get_args(Truncation))
def test_texts_become_the_tokens_that_the_scheduler_makes(
    backbones: BackboneStore, max_tokens: int, truncation: Truncation
) -> None:
    """Special tokens in a text, other scripts, cut texts, refused ones and pairs."""
    folder = backbones.fetch("minilm-l3")
    ours, schedulers = RowTokenizer(folder), BackboneTokenizer(folder / "tokenizer.json")
    texts: list[tuple[str, str | None]] = [(text, None) for text in HOSTILE]
    if truncation != "head_and_tail":
        texts += [(text, HOSTILE[0]) for text in HOSTILE]

    for text, pair in texts:
        given = text if pair is None else (text, pair)
        (expected,) = schedulers.encode([given], max_tokens, truncation)
        if isinstance(expected, MessageError):
            with pytest.raises(RowError, match="shorten it"):
                ours.encode(text, pair, max_tokens, truncation)
        else:
            found = ours.encode(text, pair, max_tokens, truncation).token_ids
            assert found.tolist() == np.frombuffer(expected, "<u4").tolist()


def test_a_committed_task_answers_its_label(local: LocalLevel, banking: LoadedTask) -> None:
    """With logits, calibrated scores and the confidence of the best label."""
    (answered,) = local.run([(banking, "I think my card was stolen")])

    assert answered.answer.labels == ("lost_or_stolen_card",)
    assert answered.logits.shape == answered.scores.shape == (77,)
    assert answered.scores.sum() == pytest.approx(1, abs=1e-5)
    assert answered.confidence == pytest.approx(float(answered.scores.max()))


def test_parameters_are_those_of_a_query(local: LocalLevel, banking: LoadedTask) -> None:
    """`top_k` gives so many labels, best first."""
    (answered,) = local.run([(banking, "my card was stolen")], QueryParameters(top_k=3))

    assert len(answered.answer.labels) == 3
    assert list(answered.answer.scores) == sorted(answered.answer.scores, reverse=True)


def test_a_pair_for_a_task_of_one_text_is_refused(local: LocalLevel, banking: LoadedTask) -> None:
    """Before anything is run."""
    with pytest.raises(RowError, match="takes one text"):
        local.run([(banking, "a"), (banking, ("a", "b"))])


def test_an_empty_text_is_refused(local: LocalLevel, banking: LoadedTask) -> None:
    """There is nothing to answer."""
    with pytest.raises(RowError, match="nothing that a model can read"):
        local.run([(banking, " ")])
