"""What can be wrong with a training run's input."""

from tasks.errors import TaskError


class TrainingError(TaskError):
    """Base of everything that `tasks.training` raises for a caller's fault."""


class BadRows(TrainingError):
    """The labelled rows cannot be read, or nothing can be learned from them."""


class NotTrainable(TrainingError):
    """A kind of task that is neither trained nor calibrated here: embeddings are imported."""


class BadRecipe(TrainingError):
    """A hyperparameter that training cannot work with."""
