"""Backbones and engines of the workers' tests: real weights, fetched once per machine."""

from pathlib import Path

import pytest
import torch

from gpu_ops.compiled.build import compiler
from gpu_ops.compiled.library import Library
from petstream.settings import load_settings
from tests.gpu_ops.compiled.libraries import FORMS, built
from tests.kept_figures import kept_figures
from workers.backbone import Backbone
from workers.backbone_store import BackboneStore
from workers.engine import Engine


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Let the reference models, like the engine, not wait for a second core at every product."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def backbones() -> BackboneStore:
    """The backbones of this machine."""
    return BackboneStore(load_settings().models_dir)


@pytest.fixture(scope="session", params=["minilm-l3", "minilm-l6"])
def backbone_folder(request: pytest.FixtureRequest, backbones: BackboneStore) -> Path:
    """The folder of each real backbone in turn; fetched where it is missing."""
    name: str = request.param
    return backbones.fetch(name)


@pytest.fixture(scope="session")
def engine(backbone_folder: Path) -> Engine:
    """An engine on each real backbone in turn, with two compute threads."""
    return Engine(Backbone.load(backbone_folder), threads=2, figures_file=kept_figures())


@pytest.fixture(scope="session")
def small_engine(backbones: BackboneStore) -> Engine:
    """An engine on the small backbone alone, with one compute thread."""
    return Engine(
        Backbone.load(backbones.fetch("minilm-l3")), threads=1, figures_file=kept_figures()
    )


@pytest.fixture(scope="session")
def library() -> Library:
    """The compiled operators in the widest variant that this processor can run."""
    if compiler() is None:
        pytest.skip("no C++ compiler")
    return built(next(iter(FORMS)))
