"""Embeddings through Kafka: they share batches with classifications, and any client reads them."""

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import BertForSequenceClassification, BertModel

from messages.query import QueryParameters
from messages.result import Result
from petstream.kafka_connection import kafka_settings
from petstream.settings import Settings
from petstream.task_registry import task_registry
from producers.client import Client
from producers.connection import Connection
from producers.new_query import new_query
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.importing import ImportOptions, import_checkpoint
from tests.oracles.goldens import BACKBONES
from tests.petstream.single_level import single_level_services, single_level_settings
from tests.tasks.importers.sentence_folders import add_modules, dense_config, dense_tensors
from tests.tasks.importers.tiny_models import NUM_LABELS, train
from workers.backbone_store import BackboneStore

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # PEFT and transformers warn of one another
]

BACKBONE = "tiny-bert"
TEXTS = ("the film is good", "not very good, it is bad", "is it?")
ANSWER_LIMIT_S = 120.0
NUM_BURSTS = 20
TOLERANCE = 1e-5
HIDDEN = 32
DIMENSIONS = 5

Expected = dict[tuple[str, str], NDArray[np.float32]]


@pytest.fixture
def settings(broker: str, namespace: str, tmp_path: Path) -> Settings:
    """Settings of a namespace whose topics are there, and of a folder with the tiny backbone."""
    models_dir = tmp_path / "models"
    BackboneStore(models_dir).add(BACKBONE, BACKBONES / "bert")
    # One partition, so that one worker gets a whole window.
    return single_level_settings(broker, namespace, tmp_path, models_dir=models_dir)


@pytest.fixture
def expected(settings: Settings, tmp_path: Path) -> Expected:
    """Import and register two classifications and three embeddings; return what torch says."""
    folder = settings.models_dir / BACKBONE
    lora: dict[str, Any] = {"r": 2, "target_modules": ["query", "value"]}
    classifier, extractor = (
        train(folder, tmp_path / task_type, peft.LoraConfig(task_type=task_type, **lora), kind)
        for task_type, kind in (
            ("SEQ_CLS", BertForSequenceClassification),
            ("FEATURE_EXTRACTION", BertModel),
        )
    )
    plain = add_modules(shutil.copytree(folder, tmp_path / "plain"))
    projected = add_modules(
        shutil.copytree(folder, tmp_path / "projected"),
        ("Transformer", "Pooling", "Dense", "Normalize"),
        dense=dense_config("Identity", HIDDEN, DIMENSIONS),
        tensors=dense_tensors(HIDDEN, DIMENSIONS),
    )
    backbone = BackboneTensors(folder)
    registry = task_registry(settings)
    exact = ImportOptions(dtype="float32")
    for name, checkpoint, options in (
        ("classes", classifier.folder, exact),
        ("lora", extractor.folder, ImportOptions(pooling="mean", normalise=True, dtype="float32")),
        ("plain", plain, exact),
        ("projected", projected, exact),
    ):
        imported = import_checkpoint(checkpoint, backbone, options)
        registry.add(imported.write(tmp_path / "made" / name, name=name).folder)
    bare = BertModel.from_pretrained(folder)
    bare.train(False)
    layer = [torch.from_numpy(values) for values in dense_tensors(HIDDEN, DIMENSIONS).values()]
    found: Expected = {}
    for text in TEXTS:
        row = row_of(folder, text)
        with torch.inference_mode():
            found["classes", text] = classifier.model(**row).logits[0].softmax(-1).numpy()
            mean = bare(**row).last_hidden_state.mean(1)
            for name, vector in (
                ("lora", extractor.model(**row).last_hidden_state.mean(1)),
                ("plain", mean),
                ("projected", functional.linear(mean, *layer)),
            ):
                found[name, text] = functional.normalize(vector)[0].numpy()
    return found


def row_of(folder: Path, text: str) -> dict[str, torch.Tensor]:
    """Return a text as transformers' models take it."""
    ids = torch.tensor([Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.fixture
def served(settings: Settings, expected: Expected) -> Iterator[Expected]:
    """Services that know all tasks, and what they should answer."""
    with single_level_services(settings, "--backbone", BACKBONE):
        yield expected


def test_embeddings_and_classes_share_a_batch_and_every_client_reads_them(
    settings: Settings, served: Expected
) -> None:
    """Clients of either encoding get the same vectors, which are those of torch."""
    kafka = kafka_settings(settings)
    with (
        Client(Connection(kafka, settings.namespace, encoding="json")) as json_client,
        Client(Connection(kafka, settings.namespace, encoding="msgpack")) as msgpack_client,
    ):
        tasks_of_batch: dict[str, set[str]] = defaultdict(set)
        for _ in range(NUM_BURSTS):
            for client in (json_client, msgpack_client):
                for (task, _), answer in answers(client, served):
                    tasks_of_batch[answer.batch_id].add(task)
            if max(map(len, tasks_of_batch.values())) == 4:
                break
        assert max(map(len, tasks_of_batch.values())) == 4
    check_commands(settings, served)


def answers(client: Client, expected: Expected) -> Iterator[tuple[tuple[str, str], Result]]:
    """Ask everything at once; yield each answer once it has been compared."""
    parameters = QueryParameters(top_k=NUM_LABELS)
    asked = [new_query(task, text, parameters=parameters) for task, text in expected]
    found = client.ask_many(asked, timeout_s=ANSWER_LIMIT_S)
    for (question, wanted), answer in zip(expected.items(), found, strict=True):
        assert isinstance(answer, Result), answer
        if question[0] == "classes":
            given = dict(zip(answer.labels, answer.scores, strict=True))
            numbers = [given[f"LABEL_{number}"] for number in range(NUM_LABELS)]
        else:
            assert answer.embedding is not None
            assert (answer.labels, answer.confidence) == ((), 1.0)
            numbers = list(answer.embedding)
        assert np.abs(np.array(numbers) - wanted).max() < TOLERANCE
        yield question, answer


def check_commands(settings: Settings, expected: Expected) -> None:
    """The command line shows a vector's beginning, and all of it as JSON."""
    wanted = expected["projected", TEXTS[0]]
    query = ("query", TEXTS[0], "--task", "projected")

    line, document = run(settings, *query), json.loads(run(settings, *query, "--json"))
    stream = run(settings, "results", "--from-beginning", "--task", "projected", "--limit", "1")
    shown = run(settings, "tasks", "show", "projected")
    listed = json.loads(run(settings, "tasks", "list", "--json"))

    assert line.startswith(f"[{wanted[0]:.4f}, ")
    assert f"of {DIMENSIONS} dimensions (level 0)" in line
    assert np.abs(np.array(document["embedding"]) - wanted).max() < TOLERANCE
    assert "labels" not in document
    assert f"of {DIMENSIONS} dimensions (level 0)" in stream
    assert "embedding" in shown
    assert f"{DIMENSIONS} dims" in shown
    kinds = {task["name"]: (task["kind"], task["num_outputs"]) for task in listed["tasks"]}
    assert kinds["projected"] == ("embedding", DIMENSIONS)
    assert kinds["plain"] == ("embedding", HIDDEN)
    assert kinds["classes"] == ("single_label", NUM_LABELS)


def run(settings: Settings, *arguments: str) -> str:
    """Run a command against the services; return what it prints."""
    ended = subprocess.run(
        [sys.executable, "-m", "petstream", *arguments],
        capture_output=True,
        text=True,
        env={**settings.environment(), "COLUMNS": "200"},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
