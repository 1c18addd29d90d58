"""PetS's own interface, as its slides use it, on real tasks."""

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from petstream.settings import load_settings
from tasks.errors import ArtifactError
from workers import PetS
from workers.backbone_store import BackboneStore
from workers.errors import BackboneMissingError, BackboneUnknownError, PetTaskError
from workers.pets_server import PetQuery, QueryQueue

TASKS = Path(__file__).parents[2] / "examples" / "tasks"


@pytest.fixture
def server(backbones: BackboneStore) -> Iterator[PetS]:
    """A server without a model."""
    backbones.fetch("minilm-l3")
    server = PetS(load_settings().models_dir, threads=1)
    yield server
    server.close()


def test_the_papers_example_runs(server: PetS) -> None:
    """Register, load, fetch, infer: several kinds of PET in one batch, answered in order."""
    adapter = server.register_task("Adapter", "minilm-l3", str(TASKS / "banking77"))
    mask = server.register_task("MaskBert", "minilm-l3", (TASKS / "snips").as_uri())
    bitfit = server.register_task("BitFit", "minilm-l3", TASKS / "sms_spam")
    server.load_shared_model("minilm-l3")
    server.load_pet_tasks([adapter, mask, bitfit])
    input_query_queue: QueryQueue = queue.Queue()
    for query in (
        PetQuery(bitfit, "WINNER!! You have won a prize, call 09061701461 now"),
        PetQuery(adapter, "I think my card was stolen"),
        PetQuery(mask, "play some jazz music"),
    ):
        input_query_queue.put(query)

    queries = server.fetch(input_query_queue)
    results = server.inference(queries)

    assert [result.answer.labels for result in results] == [
        ("spam",), ("lost_or_stolen_card",), ("PlayMusic",),
    ]  # fmt: skip


def test_a_task_is_registered_as_what_it_is(server: PetS) -> None:
    """Another type, another backbone, an unknown type, a URL of the network: each says so."""
    with pytest.raises(PetTaskError, match="is of kind adapter, not MaskBert"):
        server.register_task("MaskBert", "minilm-l3", TASKS / "banking77")
    with pytest.raises(PetTaskError, match="not on bert-base"):
        server.register_task("Adapter", "bert-base", TASKS / "banking77")
    with pytest.raises(PetTaskError, match="no PET type"):
        server.register_task("Adaptor", "minilm-l3", TASKS / "banking77")  # type: ignore[arg-type]
    with pytest.raises(PetTaskError, match="not a folder of this machine"):
        server.register_task("Adapter", "minilm-l3", "https://example.org/task")
    with pytest.raises(ArtifactError):
        server.register_task("Adapter", "minilm-l3", TASKS)


def test_what_is_not_loaded_is_not_run(server: PetS) -> None:
    """No model, no such task, no such backbone."""
    task = server.register_task("Adapter", "minilm-l3", TASKS / "banking77")
    with pytest.raises(PetTaskError, match="load_shared_model"):
        server.inference([PetQuery(task, "x")])
    with pytest.raises((BackboneUnknownError, BackboneMissingError)):
        server.load_shared_model("bert-base")
    server.load_shared_model("minilm-l3")
    with pytest.raises(PetTaskError, match="not loaded"):
        server.inference([PetQuery(task, "x")])
    with pytest.raises(PetTaskError, match="no task 7"):
        server.load_pet_tasks([7])
