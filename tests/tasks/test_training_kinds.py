"""Training on a real backbone and real sentences: every kind learns and can be written."""

from pathlib import Path
from typing import Unpack

import numpy as np
import pytest
import torch

from petstream.engine_logits import engine_logits
from petstream.settings import load_settings
from tasks.artifact_writer import write_artifact
from tasks.backbone_shape import read_shape
from tasks.pets.adapter import Adapter
from tasks.pets.bitfit import BitFit
from tasks.pets.diff import Diff
from tasks.pets.ia3 import Ia3
from tasks.pets.kinds import AnyPet
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask
from tasks.training.errors import BadRecipe, BadRows
from tasks.training.evaluation import predict
from tasks.training.level import LevelOutcome, LevelPlan, train_level
from tasks.training.model import load_dense_model
from tasks.training.recipes import Recipe, RecipeChanges, recipe_for
from tasks.training.rows import LabelledRow, LabelledRows, read_rows
from tests.kept_figures import kept_figures
from workers.backbone_store import find

PETS: dict[str, AnyPet] = {
    "lora": Lora(rank=4, alpha=8.0),
    "ia3": Ia3(),
    "bitfit": BitFit(),
    "houlsby": Adapter(placement="houlsby", bottleneck=8, activation="gelu"),
    "pfeiffer": Adapter(placement="pfeiffer", bottleneck=8, activation="relu"),
    "mask": Mask(),
    "diff": Diff(),
}
# The head hardly moves: what is learned is learned by the PET. A mask needs a rate at which
# scores reach their threshold within the 18 steps of the test.
RATES = {"mask": 0.5, "ia3": 0.05, "bitfit": 0.01, "diff": 0.003}


@pytest.fixture(scope="module")
def backbone() -> Path:
    """The small level's real weights, as `petstream models fetch` leaves them."""
    return find("minilm-l3", load_settings().models_dir)


@pytest.fixture(scope="module")
def rows() -> LabelledRows:
    """96 messages of SMS Spam (source and licence: examples/tasks/ATTRIBUTION.md)."""
    return read_rows(Path(__file__).with_name("sms_rows.jsonl"))


def _recipe(kind: str, pet: AnyPet, changes: RecipeChanges) -> Recipe:
    fields: RecipeChanges = {
        "epochs": 3,
        "rows_per_batch": 16,
        "peak_rate": RATES.get(kind, 3e-3),
        "head_rate": 1e-7,
        "dropout": 0.0,
    }
    if kind == "diff":
        fields |= {"dense_epochs": 1, "dense_rate": 1e-3}
    return recipe_for(pet, **(fields | changes))


def _train(
    backbone: Path, rows: LabelledRows, kind: str, **changes: Unpack[RecipeChanges]
) -> LevelOutcome:
    pet = PETS[kind]
    plan = LevelPlan(
        backbone_name="minilm-l3",
        backbone=backbone,
        level=0,
        pet=pet,
        recipe=_recipe(kind, pet, changes),
        pooling="none" if rows.kind == "tagging" else "mean",
        max_tokens=48,
    )
    # Judged on the rows it learns from: whether it learns, not whether that carries over.
    return train_level(plan, rows, rows, rows.label_set())


@pytest.mark.parametrize("kind", PETS)
def test_every_kind_beats_its_start_and_survives_the_file(
    backbone: Path, rows: LabelledRows, kind: str, tmp_path: Path
) -> None:
    """The PET alone lowers the loss; the artifact validates and answers as the model trained."""
    start = _train(backbone, rows, kind, epochs=0, dense_epochs=0)
    outcome = _train(backbone, rows, kind)

    assert outcome.run.best_epoch > 0
    assert outcome.run.validation_figures["loss"] < 0.97 * start.run.validation_figures["loss"]

    trained = outcome.trained
    artifact = write_artifact(
        tmp_path / "artifact",
        name=kind,
        kind=rows.kind,
        labels=rows.label_set(),
        takes_pair=False,
        source="test",
        licence="test",
        levels=[trained],
        dtype="float32",
    )
    artifact.validate({"minilm-l3": read_shape(backbone)})
    found, given = engine_logits(artifact, 0, backbone, rows, figures_file=kept_figures()).stacked()
    loss = -np.log(np.exp(found) / np.exp(found).sum(1, keepdims=True))
    targets = given.astype(int)
    mean_loss = float(loss[np.arange(len(targets)), targets].mean())
    # Trained in bf16 where the processor has it, answered in float32.
    assert mean_loss == pytest.approx(outcome.run.validation_figures["loss"], abs=0.02)


def test_a_mask_and_a_diff_are_sparse(backbone: Path, rows: LabelledRows) -> None:
    """A mask drops some weights and not most; a diff changes no more than the share it keeps."""
    mask = _train(backbone, rows, "mask").trained.tensors
    dropped = np.concatenate([t.ravel() for name, t in mask.items() if name.endswith("dropped")])
    diff = _train(backbone, rows, "diff", kept_share=0.005).trained.tensors
    delta = np.concatenate([t.ravel() for name, t in diff.items() if name.endswith("delta")])

    assert 0.001 < dropped.mean() < 0.4
    assert 0.004 < (delta != 0).mean() <= 0.005


def test_the_seed_reproduces(backbone: Path, rows: LabelledRows) -> None:
    """Same seed, same weights to the last bit; another seed, other weights."""
    first, again, other = (
        _train(backbone, rows, "lora", seed=seed, epochs=1) for seed in (1, 1, 2)
    )

    assert first.run.history == again.run.history
    for name, tensor in first.trained.tensors.items():
        np.testing.assert_array_equal(tensor, again.trained.tensors[name])
    assert any(
        not np.array_equal(tensor, other.trained.tensors[name])
        for name, tensor in first.trained.tensors.items()
    )


def test_an_injected_pet_changes_nothing_before_training(
    backbone: Path, rows: LabelledRows
) -> None:
    """Every kind starts at the backbone itself, so that the probe's head fits."""
    from tasks.training.batches import encode_rows, load_tokenizer
    from tasks.training.injection import inject

    encoded = encode_rows(rows, rows.label_set(), load_tokenizer(backbone, 48))[:8]
    torch.manual_seed(0)
    plain = load_dense_model(backbone, 2, "mean")
    head = plain.head.state_dict()
    expected = predict(plain, encoded, rows.kind).stacked()[0]
    for pet in PETS.values():
        model = load_dense_model(backbone, 2, "mean")
        model.head.load_state_dict(head)
        inject(model.sites, pet)
        np.testing.assert_allclose(
            predict(model, encoded, rows.kind).stacked()[0], expected, atol=1e-5
        )


def test_the_backbone_stays_frozen(backbone: Path, rows: LabelledRows) -> None:
    """Only PET and head have gradients, and as many weights as the kind has."""
    outcome = _train(backbone, rows, "bitfit", epochs=1)

    shape = read_shape(backbone)
    per_layer = 4 * shape.hidden_size + shape.intermediate_size + 3 * shape.hidden_size
    head = 2 * (shape.hidden_size + 1)
    assert outcome.run.num_trained == shape.num_layers * per_layer + head


def test_other_kinds_of_tasks_are_trained(backbone: Path) -> None:
    """Multi-label, regression and tagging rows train too, each with its own figures."""
    words = ["play jazz", "book a table", "play a table", "what weather", "rain in Paris", "jazz"]
    multi = LabelledRows(
        "multi_label",
        tuple(LabelledRow(w, None, ("music",) if "a" in w[:3] else ()) for w in words * 4),
        "multi",
    )
    value = LabelledRows(
        "regression",
        tuple(LabelledRow(w, "a pair", (), float(len(w))) for w in words * 4),
        "value",
    )
    tags = LabelledRows(
        "tagging",
        tuple(
            LabelledRow(w, None, tuple("B" if len(x) > 4 else "O" for x in w.split()))
            for w in words * 4
        ),
        "tags",
    )

    figures = [
        _train(backbone, rows, "lora", epochs=6).run.validation_figures
        for rows in (multi, value, tags)
    ]

    assert figures[0]["exact_match"] > 0.9
    assert figures[1]["pearson"] > 0.8
    assert figures[2]["span_f1"] > 0.9


def test_rows_that_do_not_fit_each_other_are_refused(backbone: Path, rows: LabelledRows) -> None:
    """Training and validation rows must be of one kind and form."""
    pairs = LabelledRows(
        "single_label",
        tuple(LabelledRow(row.text, "pair", row.labels) for row in rows.rows),
        "pairs.jsonl",
    )
    values = LabelledRows("regression", (LabelledRow("x", None, (), 1.0),), "values.jsonl")
    plan = LevelPlan("minilm-l3", backbone, 0, PETS["ia3"], Recipe(1, 1e-3, 1e-3), "mean", 48)

    for other, message in ((pairs, "text_pair"), (values, "is regression")):
        with pytest.raises(BadRows, match=message):
            train_level(plan, rows, other, rows.label_set())


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": -1},
        {"peak_rate": 0.0},
        {"rows_per_batch": 0},
        {"start_c": 0.0},
        {"kept_share": 1.0},
        {"kept_share": 0.1},
        {"dense_epochs": 1},
    ],
)
def test_hyperparameters_that_cannot_work_are_refused(changes: RecipeChanges) -> None:
    """Out of range, or of another kind: refused before anything is loaded."""
    with pytest.raises(BadRecipe, match="give"):
        recipe_for(Lora(rank=4, alpha=8.0), **changes)


@pytest.mark.parametrize("changes", [{"dense_epochs": 0}, {"dense_epochs": 1001}])
def test_a_diff_needs_dense_epochs(changes: RecipeChanges) -> None:
    """Without them there is no delta to keep the largest values of."""
    with pytest.raises(BadRecipe, match="dense_epochs"):
        recipe_for(Diff(), **changes)


def test_a_folder_that_is_no_backbone_is_refused(tmp_path: Path) -> None:
    """One line, no traceback of transformers."""
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(BadRecipe, match="holds no model to train on") as raised:
        load_dense_model(tmp_path, 2, "mean")

    assert "\n" not in str(raised.value)


def test_a_phase_of_ten_steps_trains(backbone: Path, rows: LabelledRows) -> None:
    """A tenth of ten steps is one step of warm-up, of which torch's own schedule makes none."""
    outcome = _train(backbone, rows, "bitfit", epochs=1, rows_per_batch=10)

    assert len(outcome.run.history) == 2
