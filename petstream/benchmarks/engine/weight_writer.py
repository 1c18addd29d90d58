"""Writes the folder of weights that every system of a case reads (`weight_files`)."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from petstream.benchmarks.engine.cases import DISTINCT_WEIGHTS, MERGEABLE, NUM_LABELS, Shape
from petstream.benchmarks.engine.merged_weights import merge
from petstream.benchmarks.engine.pets import PETS
from petstream.benchmarks.engine.random_backbone import write_random_backbone
from petstream.benchmarks.engine.weight_files import (
    PetFile,
    merged_folder,
    pet_path,
    plain_folder,
)
from tasks.backbone_shape import read_shape
from tasks.pets.random_weights import random_floats, random_weights
from workers.backbone_config import CONFIG_FILE
from workers.backbone_folder import WEIGHTS_FILE
from workers.backbone_store import find


class WeightWriter:
    """Makes folders of weights under one root, each once."""

    def __init__(self, root: Path, models_dir: Path) -> None:
        self._root = root
        self._models_dir = models_dir

    def folder(self, shape: Shape, pets: Sequence[str]) -> Path:
        """Return the folder for these PETs on this backbone; write it if it is not there.

        Raises:
            BackboneError: If the shape's weights are the catalogue's and not on this machine.
        """
        folder = self._root / f"{shape.name}-{'-'.join(pets)}"
        if not folder.is_dir():
            folder.mkdir()
            plain_folder(folder).symlink_to(self._plain(shape))
            _write_pets(folder, pets)
        return folder

    def drop(self, shape: Shape, pets: Sequence[str]) -> None:
        """Remove a folder that no later case needs: BERT-base's takes gigabytes."""
        shutil.rmtree(self._root / f"{shape.name}-{'-'.join(pets)}")

    def _plain(self, shape: Shape) -> Path:
        if shape.from_catalogue:
            return find(shape.name, self._models_dir).resolve()
        folder = self._root / f"{shape.name}-plain"
        if not folder.is_dir():
            write_random_backbone(shape, folder)
        return folder.resolve()


def _write_pets(folder: Path, pets: Sequence[str]) -> None:
    plain = plain_folder(folder)
    shape = read_shape(plain)
    weights = load_file(plain / WEIGHTS_FILE)
    for number in range(DISTINCT_WEIGHTS):
        kind = pets[number % len(pets)]
        rng = np.random.default_rng(number)
        dense = random_weights(PETS[kind], shape, rng)
        head = random_floats(rng, 0.3, NUM_LABELS, shape.hidden_size)
        PetFile(dense, head, random_floats(rng, 0.3, NUM_LABELS)).write(pet_path(folder, number))
        if kind in MERGEABLE:
            merged = merged_folder(folder, number)
            merged.mkdir()
            shutil.copyfile(plain / CONFIG_FILE, merged / CONFIG_FILE)
            save_file(merge(weights, dense), merged / WEIGHTS_FILE, metadata={"format": "pt"})
