"""One training run from labelled rows to a level of an artifact, with its report."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from messages.task_event import TaskKind
from tasks.artifact_writer import TrainedLevel
from tasks.backbone_shape import backbone_digest, read_shape
from tasks.description import BackboneReference, Pooling
from tasks.pets.kinds import AnyPet
from tasks.training.batches import encode_rows, load_tokenizer
from tasks.training.errors import BadRows
from tasks.training.evaluation import extract_features, predict
from tasks.training.figures import figures
from tasks.training.injection import dense_tensors, inject
from tasks.training.model import load_dense_model
from tasks.training.recipes import Recipe
from tasks.training.rows import LabelledRows
from tasks.training.runtime import has_fast_bf16
from tasks.training.trainer import OnStep, TrainingRun, TrainingSet, train


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """What is to be trained, and on what."""

    backbone_name: str
    backbone: Path
    """Hugging Face folder."""
    level: int
    pet: AnyPet
    recipe: Recipe
    pooling: Pooling
    max_tokens: int


@dataclass(frozen=True, slots=True)
class LevelOutcome:
    """A trained level and how it came about."""

    trained: TrainedLevel
    run: TrainingRun
    report: dict[str, Any]
    """As JSON: figures on the validation rows beside the probe's, recipe, rows, time."""


def train_level(
    plan: LevelPlan,
    train_rows: LabelledRows,
    validation_rows: LabelledRows,
    labels: Sequence[str],
    *,
    test_rows: LabelledRows | None = None,
    on_step: OnStep = lambda done, planned, value: None,
) -> LevelOutcome:
    """Train one level of a task.

    Args:
        plan: Backbone, PET and recipe.
        train_rows: Learned from.
        validation_rows: Of the same kind; they choose the epoch and are reported on.
        labels: In the order of the head's rows.
        test_rows: Reported on and used for nothing else.
        on_step: For a progress bar.

    Raises:
        BadRows: If the files do not fit each other or the labels.
        BadRecipe: If the backbone's folder or a hyperparameter cannot be used.
        ArtifactError: If the PET does not fit the backbone.
    """
    for other in (validation_rows, test_rows):
        if other is not None:
            _check_fit(train_rows, other)
    shape = read_shape(plan.backbone)
    plan.pet.tensor_specs(shape)
    torch.manual_seed(plan.recipe.seed)
    tokenizer = load_tokenizer(plan.backbone, plan.max_tokens)
    data = TrainingSet(
        kind=train_rows.kind,
        labels=labels,
        train=encode_rows(train_rows, labels, tokenizer),
        validation=encode_rows(validation_rows, labels, tokenizer),
    )
    model = load_dense_model(plan.backbone, len(labels), plan.pooling)
    test = None if test_rows is None else encode_rows(test_rows, labels, tokenizer)
    test_features = None if test is None else extract_features(model, test, data.kind)
    inject(model.sites, plan.pet)
    run = train(model, data, plan.recipe, use_bf16=has_fast_bf16(), on_step=on_step)
    trained = TrainedLevel(
        level=plan.level,
        backbone=BackboneReference(name=plan.backbone_name, digest=backbone_digest(plan.backbone)),
        shape=shape,
        pet=plan.pet,
        pooling=plan.pooling,
        max_tokens=plan.max_tokens,
        head_weight=model.head.weight.detach().numpy(),
        head_bias=model.head.bias.detach().numpy(),
        tensors=dense_tensors(model.sites),
    )
    report = _report(plan, run, train_rows, validation_rows)
    if test is not None and test_features is not None:
        report["test_rows"] = len(test)
        report["test"] = _rounded(figures(predict(model, test, data.kind), labels))
        probed = test_features.with_outputs(run.probe.logits(test_features.stacked()[0]))
        report["test_linear_probe"] = _rounded(figures(probed, labels))
    return LevelOutcome(trained, run, report)


def pooling_for(kind: TaskKind) -> Pooling:
    """Return how token states become what the head sees."""
    return "none" if kind == "tagging" else "mean"


def _check_fit(train_rows: LabelledRows, other: LabelledRows) -> None:
    if train_rows.kind != other.kind:
        raise BadRows(
            f"{other.origin} is {other.kind}, {train_rows.origin} is "
            f"{train_rows.kind}: give rows of one kind"
        )
    if train_rows.takes_pair != other.takes_pair:
        raise BadRows(
            f"one of {train_rows.origin} and {other.origin} has text_pair, the other "
            f"has not: give both or none"
        )


def _report(
    plan: LevelPlan, run: TrainingRun, train_rows: LabelledRows, validation_rows: LabelledRows
) -> dict[str, Any]:
    return {
        "level": plan.level,
        "backbone": plan.backbone_name,
        "pet": plan.pet.model_dump(mode="json"),
        "recipe": asdict(plan.recipe),
        "train_rows": len(train_rows.rows),
        "validation_rows": len(validation_rows.rows),
        "validation": _rounded(run.validation_figures),
        "validation_linear_probe": _rounded(run.probe_figures),
        "validation_history": [round(value, 4) for value in run.history],
        "best_epoch": run.best_epoch,
        "trainable_weights": run.num_trained,
        "seconds": round(run.seconds, 1),
    }


def _rounded(found: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in found.items()}
