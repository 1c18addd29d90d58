"""A tiny backbone, saved once."""

from pathlib import Path

import pytest

from tasks.importers.backbone_tensors import BackboneTensors
from tests.tasks.importers.tiny_models import save_backbone


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights."""
    return save_backbone(tmp_path_factory.mktemp("backbones") / "tiny-bert")


@pytest.fixture(scope="session")
def backbone(backbone_folder: Path) -> BackboneTensors:
    """Its tensors, as importers read them."""
    return BackboneTensors(backbone_folder)
