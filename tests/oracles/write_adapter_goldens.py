"""Writes `backbones/` and `adapters/` again: what the adapters library saves and answers.

    .venv-oracles/bin/python -m tests.oracles.write_adapter_goldens [VARIANT ...]

Without names everything is written, and folders of variants that are no more are removed. Every
tensor of a PET is random, those that start at zero or one too, and the logits are taken row by
row, unpadded, in float32. README.md says what is in a folder.
"""

import argparse
import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import adapters  # type: ignore[import-not-found]
import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

from tests.oracles.adapter_models import Logits, OracleModel, largest_gap
from tests.oracles.adapter_variants import VARIANTS, Variant
from tests.oracles.tiny_backbones import FAMILIES, rows, write_backbone

HERE = Path(__file__).parent
BACKBONES = HERE / "backbones"
ADAPTERS = HERE / "adapters"
_LEAST_CHANGE = 0.05
"""By how much a PET must change some logit of every row."""


def main() -> None:
    """Write all or the named variants."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("variant", nargs="*", help="only these")
    names = set(parser.parse_args().variant)
    torch.set_num_threads(1)  # sums in one order
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.getLogger("adapters").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if not names:
        for folder in (BACKBONES, ADAPTERS):
            shutil.rmtree(folder, ignore_errors=True)
        for family in FAMILIES:
            write_backbone(family, BACKBONES / family)
    for variant in VARIANTS:
        if not names or variant.name in names:
            _write(variant, ADAPTERS / variant.name)


def _write(variant: Variant, folder: Path) -> None:
    """Write one variant's checkpoint and what the library answers with it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    oracle = OracleModel.random(variant, BACKBONES / variant.family)
    _save(oracle, folder)
    unheard = oracle.unheard_tensors()
    # A ReFT unit for suffixes is there without a suffix too, or has [CLS] never in it.
    assert all(".units.1." in name for name in unheard), f"{variant.name}: {unheard}"
    if variant.config is None:
        save_file({"hidden": oracle.hidden()}, folder / "hidden.safetensors")
    logits = oracle.logits()
    reloaded = OracleModel.load(variant, BACKBONES / variant.family, folder).logits()
    if variant.aged is not None:
        logits = reloaded
    without = oracle.logits_without_pet()
    if variant.config is not None:
        _check_change(variant, logits, without)
    about = {
        "variant": variant.name,
        "family": variant.family,
        "written_by": f"adapters {adapters.__version__}, transformers {transformers.__version__}, "
        f"torch {torch.__version__}",
        "adapter": None if variant.config is None else variant.adapter,
        "library_reloads": largest_gap(logits, reloaded) < 1e-5,
        "unheard_tensors": unheard,
    }
    _write_golden(folder / "golden.json", variant, about, logits, without)


def _save(oracle: OracleModel, folder: Path) -> None:
    """Save in safetensors where the library can, else in its `.bin`."""
    variant, model = oracle.variant, oracle.model
    if variant.config is None:
        model.save_head(str(folder), variant.adapter, use_safetensors=True)
        return
    try:
        model.save_adapter(str(folder), variant.adapter, use_safetensors=not variant.pickled)
    except RuntimeError as error:
        if "share memory" not in str(error):
            raise
        model.save_adapter(str(folder), variant.adapter, use_safetensors=False)
    if variant.aged is not None:
        _age(folder, variant.aged)


def _age(folder: Path, as_of: str) -> None:
    """Edit a checkpoint into what an earlier release wrote: a version, or none and other names."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    if as_of.startswith("adapters."):
        config["version"] = as_of
    else:
        del config["version"]
        config["type"] = "text_task"
        tensors = {
            name.replace(".output.adapters.", ".output.layer_text_task_adapters."): tensor
            for name, tensor in load_file(folder / "adapter.safetensors").items()
        }
        save_file(tensors, folder / "adapter.safetensors")
    path.write_text(json.dumps(config, indent=2, sort_keys=True))


def _check_change(variant: Variant, logits: list[Logits], without: list[Logits]) -> None:
    for row, (ours, bare) in enumerate(zip(logits, without, strict=True)):
        change = np.abs(ours[-len(bare) :] - bare).max()
        assert np.isfinite(ours).all()
        assert change > _LEAST_CHANGE, f"{variant.name}: row {row} changes by {change} only"


def _write_golden(
    path: Path,
    variant: Variant,
    about: dict[str, Any],
    logits: list[Logits],
    without: list[Logits],
) -> None:
    """Write JSON with one row of tokens to a line; a float has the digits that float32 needs."""
    lines = [
        json.dumps(
            {
                "token_ids": row.token_ids,
                "token_types": row.token_types,
                "logits": _shortest(ours),
                "logits_without_pet": _shortest(bare),
            }
        )
        for row, ours, bare in zip(rows(variant.family), logits, without, strict=True)
    ]
    text = json.dumps(about, indent=1).removesuffix("\n}")
    path.write_text(text + ',\n "rows": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n")


def _shortest(array: Logits) -> list[Any]:
    if array.ndim == 1:
        return [float(str(value)) for value in array]
    return [_shortest(row) for row in array]


if __name__ == "__main__":
    main()
