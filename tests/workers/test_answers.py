"""From scores to answers: what embeddings add; the labels are tested with the stage."""

import numpy as np
import pytest

from messages.query import NO_PARAMETERS, QueryParameters
from tasks.description import TaskDescription
from workers.answers import answer, normalised


def embedding(*, normalise: bool) -> TaskDescription:
    """Return an embedding of three dimensions."""
    level = {
        "level": 0,
        "backbone": {"name": "minilm-l3", "digest": "sha256:" + 64 * "0"},
        "pet": {"kind": "bitfit"},
        "pooling": "mean",
        "max_tokens": 64,
        "file": "level-0.safetensors",
        "sha256": 64 * "0",
    }
    return TaskDescription.model_validate(
        {
            "format": 1,
            "name": "t",
            "revision": 1,
            "kind": "embedding",
            "labels": (),
            "embedding": {"dimensions": 3, "normalise": normalise},
            "takes_pair": False,
            "source": "",
            "licence": "",
            "levels": (level,),
        }
    )


VECTOR = np.array([3.0, 0.0, -4.0], np.float32)
AS_FLOAT32 = tuple(np.array([0.6, 0.0, -0.8], np.float32).tolist())


@pytest.mark.parametrize(("normalise", "expected"), [(True, AS_FLOAT32), (False, (3.0, 0.0, -4.0))])
def test_a_vector_has_length_one_where_the_task_says_so(
    normalise: bool, expected: tuple[float, ...]
) -> None:
    """Each number is one that float32 has."""
    found = answer(embedding(normalise=normalise), VECTOR, NO_PARAMETERS)

    assert found.embedding == expected
    assert (found.labels, found.scores, found.value) == ((), (), None)


def test_parameters_that_choose_among_labels_change_no_vector() -> None:
    """There is nothing to choose among."""
    task = embedding(normalise=True)
    parameters = QueryParameters(top_k=1, min_confidence=1.0, accuracy_target=1.0)

    assert answer(task, VECTOR, parameters) == answer(task, VECTOR, NO_PARAMETERS)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_the_size_of_a_vector_does_not_overflow(size: float) -> None:
    """Squares are taken in float64; what is too short to have a direction stays short."""
    found = normalised(np.full(4, size, np.float32))

    assert np.isfinite(found).all()
    assert np.linalg.norm(found) == pytest.approx(min(1.0, 2 * size / 1e-12), rel=1e-6)


def test_zeros_stay_zeros() -> None:
    """As torch has it, instead of NaN."""
    assert not normalised(np.zeros(3, np.float32)).any()
