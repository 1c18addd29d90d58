"""The training loop: probe, head initialisation, epochs, the best of their states."""

import copy
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from messages.task_event import TaskKind
from tasks.training.batches import (
    EncodedRow,
    num_batches,
    shuffled_batches,
)
from tasks.training.evaluation import extract_features, predict
from tasks.training.figures import PRIMARY, figures
from tasks.training.model import DenseModel
from tasks.training.objectives import array_loss, loss
from tasks.training.probe import Probe, fit_probe
from tasks.training.recipes import Recipe
from tasks.training.schedule import one_cycle
from tasks.training.weight_changes import PrunableDelta, prune_to_share

_log = logging.getLogger(__name__)

OnStep = Callable[[int, int, float], None]
"""Called after each step with steps done, steps planned, loss."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What a run learns from and is judged by."""

    kind: TaskKind
    labels: Sequence[str]
    """In the order of the head's rows."""
    train: Sequence[EncodedRow]
    validation: Sequence[EncodedRow]
    """Not trained on; chooses the epoch."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What came out, beside the model itself."""

    probe: Probe
    probe_figures: dict[str, float]
    """Of the linear probe, on the validation rows."""
    validation_figures: dict[str, float]
    """Of the state that was kept."""
    history: tuple[float, ...]
    """The primary figure on the validation rows: at the start, then after each epoch."""
    best_epoch: int
    num_trained: int
    """Trainable weights, head included."""
    seconds: float


def train(
    model: DenseModel,
    data: TrainingSet,
    recipe: Recipe,
    *,
    use_bf16: bool,
    on_step: OnStep = lambda done, planned, value: None,
) -> TrainingRun:
    """Train the model's PET and head in place and leave its best state in it.

    Args:
        model: With a freshly injected PET.
        data: Encoded rows.
        recipe: Hyperparameters.
        use_bf16: Matrix products of the encoder in bf16; PET weights stay float32.
        on_step: For a progress bar.
    """
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(recipe.seed)
    features, targets = extract_features(model, data.train, data.kind, use_bf16=use_bf16).stacked()
    num_labels = len(data.labels)
    probe = fit_probe(features, targets, data.kind, num_labels, recipe.seed)
    start = fit_probe(features, targets, data.kind, num_labels, recipe.seed, recipe.start_c)
    _start_at(model, start)
    held = extract_features(model, data.validation, data.kind, use_bf16=use_bf16)
    probe_figures = figures(held.with_outputs(probe.logits(held.stacked()[0])), data.labels)

    steps_per_epoch = num_batches(len(data.train), recipe.rows_per_batch)
    planned = steps_per_epoch * (recipe.dense_epochs + recipe.epochs)
    progress = _Progress(planned, on_step)
    loop = _Loop(model, data, recipe, generator, use_bf16, steps_per_epoch, progress)
    history = [loop.validate()[PRIMARY[data.kind]]]
    deltas = [c for c in model.sites.weight_changes() if isinstance(c, PrunableDelta)]
    if recipe.dense_epochs and deltas:
        history += [
            loop.validate()[PRIMARY[data.kind]]
            for _ in loop.epochs(recipe.dense_epochs, recipe.dense_rate)
        ]
        prune_to_share(deltas, recipe.kept_share)
    best = _Best(loop.validate(), PRIMARY[data.kind], model, len(history) - 1)
    for _ in loop.epochs(recipe.epochs, recipe.peak_rate):
        found = loop.validate()
        history.append(found[PRIMARY[data.kind]])
        best.offer(found, model, len(history) - 1)
        _log.info("epoch %d: %s", len(history) - 1, found)
    best.restore(model)
    return TrainingRun(
        probe=probe,
        probe_figures=probe_figures,
        validation_figures=best.figures,
        history=tuple(history),
        best_epoch=best.epoch,
        num_trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        seconds=time.perf_counter() - started,
    )


def _start_at(model: DenseModel, probe: Probe) -> None:
    weight, bias = probe.head()
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weight))
        model.head.bias.copy_(torch.from_numpy(bias))


class _Progress:
    def __init__(self, planned: int, on_step: OnStep) -> None:
        self._done = 0
        self._planned = planned
        self._on_step = on_step

    def step(self, value: float) -> None:
        self._done += 1
        self._on_step(self._done, self._planned, value)


@dataclass(frozen=True, slots=True)
class _Loop:
    model: DenseModel
    data: TrainingSet
    recipe: Recipe
    generator: torch.Generator
    use_bf16: bool
    steps_per_epoch: int
    progress: _Progress

    def epochs(self, num_epochs: int, peak_rate: float) -> Iterator[int]:
        """Train, and yield after each epoch; one cycle of the rate over all of them."""
        if num_epochs == 0:
            return
        optimizer = self._optimizer(peak_rate)
        num_steps = num_epochs * self.steps_per_epoch
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: one_cycle(step, num_steps, self.recipe.warm_up_share)
        )
        for epoch in range(num_epochs):
            batches = shuffled_batches(
                self.data.train, self.data.kind, self.recipe.rows_per_batch, self.generator
            )
            for batch in batches:
                with torch.autocast("cpu", torch.bfloat16, enabled=self.use_bf16):
                    logits = self.model(batch, dropout=self.recipe.dropout)
                value = loss(logits, batch.targets, self.data.kind)
                value.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(_parameters(optimizer), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
                self.progress.step(float(value.detach()))
            yield epoch

    def validate(self) -> dict[str, float]:
        kind = self.data.kind
        found = predict(self.model, self.data.validation, kind, use_bf16=self.use_bf16)
        return figures(found, self.data.labels) | {"loss": array_loss(*found.stacked(), kind)}

    def _optimizer(self, peak_rate: float) -> torch.optim.Optimizer:
        head = list(self.model.head.parameters())
        of_head = {id(parameter) for parameter in head}
        pet = [p for p in self.model.parameters() if p.requires_grad and id(p) not in of_head]
        groups = [
            {"params": pet, "lr": peak_rate},
            {"params": head, "lr": self.recipe.head_rate},
        ]
        return torch.optim.AdamW(groups, weight_decay=self.recipe.weight_decay, fused=True)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


class _Best:
    """The best state so far by the primary validation figure; of equals the one of least loss."""

    def __init__(
        self, found: dict[str, float], primary: str, model: DenseModel, epoch: int
    ) -> None:
        self.figures = found
        self.epoch = epoch
        self._primary = primary
        self._state = _trainable_state(model)

    def offer(self, found: dict[str, float], model: DenseModel, epoch: int) -> None:
        if self._rank(found) > self._rank(self.figures):
            self.figures, self.epoch, self._state = found, epoch, _trainable_state(model)

    def _rank(self, found: dict[str, float]) -> tuple[float, float]:
        return found[self._primary], -found["loss"]

    def restore(self, model: DenseModel) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self._state:
                    parameter.copy_(self._state[name])


def _trainable_state(model: DenseModel) -> dict[str, Tensor]:
    return {
        name: copy.deepcopy(parameter.detach())
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
