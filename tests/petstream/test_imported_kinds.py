"""Checkpoints of PEFT served through Kafka: rows of every kind in one batch, PEFT's answers."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

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
from tests.tasks.importers.peft_variants import OTHERS, WEIGHT_LIKE
from tests.tasks.importers.tiny_models import NUM_LABELS, train
from workers.backbone_store import BackboneStore

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # PEFT and transformers warn of one another
]

BACKBONE = "tiny-bert"
VARIANTS = (
    "lora", "lora-bias-all", "dora", "adalora", "vera", "ia3", "beft", "shira", "prefix", "prompt",
    "p-tuning", "ln-tuning", "tokens",
)  # fmt: skip
NUM_KINDS = 10
TEXTS = ("the film is good", "not very good, it is bad", "is it?")
ANSWER_LIMIT_S = 120.0
NUM_BURSTS = 20
TOLERANCE = {"shira": 5e-3}
DEFAULT_TOLERANCE = 1e-5

Probabilities = NDArray[np.float32]
Expected = Mapping[tuple[str, str], Probabilities]


@pytest.fixture
def settings(broker: str, namespace: str, tmp_path: Path) -> Settings:
    """Settings of a namespace whose topics are there, and of a folder with the tiny backbone."""
    models_dir = tmp_path / "models"
    BackboneStore(models_dir).add(BACKBONE, BACKBONES / "bert")
    # One partition, so that one worker gets a whole window.
    return single_level_settings(broker, namespace, tmp_path, models_dir=models_dir)


@pytest.fixture
def expected(settings: Settings, tmp_path: Path) -> dict[tuple[str, str], Probabilities]:
    """Train, import and register a task of each variant; return PEFT's probabilities."""
    folder = settings.models_dir / BACKBONE
    backbone = BackboneTensors(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    registry = task_registry(settings)
    found: dict[tuple[str, str], Probabilities] = {}
    kinds = set()
    for variant in VARIANTS:
        config = (WEIGHT_LIKE | OTHERS)[variant]
        trained = train(folder, tmp_path / "peft" / variant, config)
        imported = import_checkpoint(trained.folder, backbone, ImportOptions())
        kinds.add(imported.imported.pet.kind)
        registry.add(imported.write(tmp_path / "made" / variant, name=variant).folder)
        for text in TEXTS:
            ids = torch.tensor([tokenizer.encode(text).ids])
            with torch.inference_mode():
                logits = trained.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            found[variant, text] = logits[0].softmax(-1).numpy()
    assert len(kinds) >= NUM_KINDS, kinds
    return found


@pytest.fixture
def client(settings: Settings, expected: Expected) -> Iterator[Client]:
    """A client of services that know all tasks."""
    with (
        single_level_services(settings, "--backbone", BACKBONE),
        Client(Connection(kafka_settings(settings), settings.namespace)) as client,
    ):
        yield client


def test_rows_of_every_kind_share_a_batch_and_are_answered_as_peft_does(
    client: Client, expected: Expected
) -> None:
    """Some batch holds rows of ten kinds and more; every answer of every batch is PEFT's."""
    tasks_of_batch: dict[str, set[str]] = defaultdict(set)
    for _ in range(NUM_BURSTS):
        queries = [
            new_query(variant, text, parameters=QueryParameters(top_k=NUM_LABELS))
            for variant, text in expected
        ]
        answers = client.ask_many(queries, timeout_s=ANSWER_LIMIT_S)
        for (variant, text), answer in zip(expected, answers, strict=True):
            assert isinstance(answer, Result), answer
            _check(answer, expected[variant, text], TOLERANCE.get(variant, DEFAULT_TOLERANCE))
            tasks_of_batch[answer.batch_id].add(variant)
        if max(map(len, tasks_of_batch.values())) == len(VARIANTS):
            break

    assert max(map(len, tasks_of_batch.values())) >= NUM_KINDS


def _check(answer: Result, probabilities: Probabilities, tolerance: float) -> None:
    given = dict(zip(answer.labels, answer.scores, strict=True))
    scores = [given[f"LABEL_{number}"] for number in range(NUM_LABELS)]
    assert np.abs(np.array(scores) - probabilities).max() < tolerance
