"""PetS's own interface (Zhou et al., USENIX ATC 2022, user interface): in one process, no Kafka.

    server = PetS()
    adapter = server.register_task("Adapter", "minilm-l3", "examples/tasks/banking77")
    server.load_shared_model("minilm-l3")
    server.load_pet_tasks([adapter])
    queries = server.fetch(input_query_queue)
    results = server.inference(queries)

The packed engine pads nothing, so a fetched set of queries is one macro-batch; what the paper's
scheduler decides beyond that is the work of `scheduler/`, behind Kafka.
"""

import queue
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import unquote, urlsplit

import platformdirs

from tasks.artifact import Artifact, open_artifact
from workers.backbone_store import find
from workers.errors import PetTaskError
from workers.loaded_task import LoadedTask
from workers.local_level import LocalAnswer, LocalLevel, Text

PetType = Literal[
    "AdaLoRA", "Adapter", "BitFit", "Combined", "Compacter", "DiffPruning", "DoRA", "FullDelta",
    "IA3", "LayerNorm", "LoRA", "MaskBert", "Prefix", "Prompt",
]  # fmt: skip

_KINDS: Mapping[PetType, str] = {
    "AdaLoRA": "adalora",
    "Adapter": "adapter",
    "BitFit": "bitfit",
    "Combined": "combined",
    "Compacter": "compacter",
    "DiffPruning": "diff",
    "DoRA": "dora",
    "FullDelta": "dense_delta",
    "IA3": "ia3",
    "LayerNorm": "layer_norm",
    "LoRA": "lora",
    "MaskBert": "mask",
    "Prefix": "prefix",
    "Prompt": "prompt",
}


@dataclass(frozen=True, slots=True)
class PetQuery:
    """One query of one registered task."""

    task_id: int
    text: Text


QueryQueue: TypeAlias = "queue.Queue[PetQuery]"


@dataclass(frozen=True, slots=True)
class _Registered:
    artifact: Artifact
    level: int


class PetS:
    """A server of PET tasks on one shared model. Used from one thread."""

    def __init__(self, models_dir: Path | None = None, *, threads: int | None = None) -> None:
        """Create a server without a model.

        Args:
            models_dir: Where `petstream models fetch` puts backbones; None: its default place.
            threads: How many cores to use; None is every core this process may run on.
        """
        self._models_dir = models_dir or Path(platformdirs.user_cache_dir("petstream"), "backbones")
        self._threads = threads
        self._registered: dict[int, _Registered] = {}
        self._backbone: str | None = None
        self._level: LocalLevel | None = None
        self._loaded: dict[int, LoadedTask] = {}

    def register_task(self, pet_type: PetType, backbone: str, url: str | Path) -> int:
        """Register a task; nothing of its weights is read yet.

        Args:
            pet_type: As PetS names kinds.
            backbone: The shared model that the task was trained on.
            url: The task's artifact folder: a path or a `file:` URL.

        Returns:
            The task's id.

        Raises:
            PetTaskError: If the artifact is of another type, or has no level on that backbone.
            ArtifactError: If the folder holds no valid artifact.
        """
        if pet_type not in _KINDS:
            raise PetTaskError(f"no PET type {pet_type!r}: known are {', '.join(_KINDS)}")
        artifact = open_artifact(_path(url))
        description = artifact.description
        for level in description.levels:
            if level.backbone.name == backbone:
                if level.pet.kind != _KINDS[pet_type]:
                    raise PetTaskError(
                        f"{description.name} is of kind {level.pet.kind}, not {pet_type}: register "
                        f"it as what it is"
                    )
                task_id = len(self._registered)
                self._registered[task_id] = _Registered(artifact, level.level)
                return task_id
        found = ", ".join(level.backbone.name for level in description.levels)
        raise PetTaskError(f"{description.name} has levels on {found}, not on {backbone}")

    def load_shared_model(self, name: str) -> None:
        """Load a backbone in place of the one before, whose tasks are dropped.

        Raises:
            BackboneError: If it is not on this machine or not one that the engine runs.
        """
        self.close()
        self._level = LocalLevel(find(name, self._models_dir), threads=self._threads)
        self._backbone = name

    def load_pet_tasks(self, task_ids: Sequence[int]) -> None:
        """Load registered tasks of the shared model.

        Raises:
            PetTaskError: If an id was not registered, is of another backbone, or no shared model
                is loaded.
            ArtifactError: If a task's weights are not valid.
        """
        level = self._shared()
        for task_id in task_ids:
            registered = self._registered.get(task_id)
            if registered is None:
                raise PetTaskError(f"no task {task_id} is registered: see register_task")
            backbone = registered.artifact.description.level(registered.level).backbone.name
            if backbone != self._backbone:
                raise PetTaskError(f"task {task_id} is on {backbone}, loaded is {self._backbone}")
            self._loaded[task_id] = level.load(registered.artifact, registered.level)

    def fetch(self, query_queue: QueryQueue) -> list[PetQuery]:
        """Take what is in the queue: waits for the first query, not for a second."""
        queries = [query_queue.get()]
        while True:
            try:
                queries.append(query_queue.get_nowait())
            except queue.Empty:
                return queries

    def inference(self, queries: Sequence[PetQuery]) -> list[LocalAnswer]:
        """Answer queries of loaded tasks in one batch, in their order.

        Raises:
            PetTaskError: If a query's task is not loaded.
            RowError: If a query cannot be run; none was run then.
        """
        level = self._shared()
        missing = sorted({q.task_id for q in queries} - self._loaded.keys())
        if missing:
            raise PetTaskError(f"tasks {missing} are not loaded: see load_pet_tasks")
        return level.run([(self._loaded[query.task_id], query.text) for query in queries])

    def close(self) -> None:
        """Drop the shared model and its tasks."""
        if self._level is not None:
            self._level.close()
        self._level = None
        self._loaded.clear()

    def _shared(self) -> LocalLevel:
        if self._level is None:
            raise PetTaskError("no shared model is loaded: call load_shared_model first")
        return self._level


def _path(url: str | Path) -> Path:
    if isinstance(url, Path):
        return url
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc:
        return Path(unquote(parts.path))
    if "://" in url:
        raise PetTaskError(f"{url[:100]!r} is not a folder of this machine: copy the task here")
    return Path(url)
