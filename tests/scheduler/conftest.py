"""Fixtures of the scheduler's tests."""

from pathlib import Path

import pytest

from tests.scheduler.stages import write_backbones


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with two backbones that have only a tokenizer."""
    return write_backbones(tmp_path_factory.mktemp("models"))
