"""How far the engine's logits are from those of what trained a PET, kind by kind.

    python benchmarks/bench_pet_parity.py [--json]

Oracles: PEFT itself, on a tiny random BERT; the logits that the adapters library computed for the
committed checkpoints (tests/oracles), on tiny BERT, RoBERTa and DistilBERT; and for every kind an
independent dense model of transformers on MiniLM-L3's real weights. All float32, all rows of a
checkpoint in one packed batch, each alone in the oracle. A difference is absolute where logits are
within 1, and a share of the largest logit where they are larger.
"""

import argparse
import json
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from petstream.benchmarks.document import Goal, make_document
from petstream.settings import load_settings
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.importing import ImportOptions, import_checkpoint
from tasks.pets.kinds import PET_KINDS
from tests.oracles.goldens import load_golden
from tests.tasks.importers import served, test_adapterhub_goldens, tiny_models
from tests.tasks.importers.peft_variants import OTHERS, WEIGHT_LIKE
from tests.workers.dense_reference import merged_model, plain_model, reference_logits
from tests.workers.pets import PETS, random_task
from workers.backbone import Backbone
from workers.backbone_store import BackboneStore
from workers.engine import Engine, EngineRow

GOAL = 1e-5
ROUNDED = "shira"
"""Stored as float16, so its difference is that rounding."""

Logits = Sequence[NDArray[np.float32]]


class Comparison(NamedTuple):
    """One checkpoint or task beside its oracle."""

    kind: str
    oracle: str
    variant: str
    difference: float


def difference(found: Logits, expected: Logits) -> float:
    """Return the largest difference of any row, as the module says."""
    return max(
        float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))
        for ours, theirs in zip(found, expected, strict=True)
    )


def beside_peft() -> Iterator[Comparison]:
    """Train nothing, move everything: every variant of PEFT that is imported."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = tiny_models.save_backbone(Path(scratch) / "tiny-bert")
        backbone = BackboneTensors(folder)
        for variant, config in (WEIGHT_LIKE | OTHERS).items():
            trained = tiny_models.train(folder, Path(scratch) / variant / "peft", config)
            found = import_checkpoint(trained.folder, backbone, ImportOptions(dtype="float32"))
            logits = tiny_models.engine_logits(found, folder, Path(scratch) / variant / "task")
            expected = tiny_models.expected_logits(trained.model)
            kind = found.imported.pet.kind
            yield Comparison(kind, "PEFT", variant, difference(logits, expected))


def beside_adapters() -> Iterator[Comparison]:
    """Compare with the committed logits of the adapters library."""
    for name in test_adapterhub_goldens.IMPORTED:
        golden = load_golden(name)
        found = test_adapterhub_goldens.imported(name)
        rows = [row.token_ids for row in golden.rows]
        logits = served.engine_logits(found, golden.backbone, rows, has_pairs=True)
        # A prompt's own tokens, which tagging models answer too, are not ours.
        expected = [
            np.atleast_1d(row.logits[-len(row.logits_without_pet) :]) for row in golden.rows
        ]
        yield Comparison(found.pet.kind, "adapters", name, difference(logits, expected))


def beside_dense_models() -> Iterator[Comparison]:
    """Compare random tasks of every kind and option with a dense model on real weights."""
    folder = BackboneStore(load_settings().models_dir).fetch("minilm-l3")
    engine = Engine(Backbone.load(folder), threads=1)
    plain = plain_model(folder)
    rng = np.random.default_rng(0)
    rows = [rng.integers(1000, 30000, length) for length in (3, 12, 40)]
    for variant, pet in PETS.items():
        task = random_task(variant, engine.backbone.shape)
        loaded = task.load(engine)
        logits = engine.run([EngineRow(loaded, ids) for ids in rows])
        model = merged_model(plain, task)
        expected = [reference_logits(model, task, ids) for ids in rows]
        yield Comparison(pet.kind, "dense model", variant, difference(logits, expected))
    engine.close()


def by_kind(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return one row per kind: how many were compared, and the largest difference, by oracle."""
    grouped: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for one in found:
        if one.variant != ROUNDED:
            grouped[one.kind, one.oracle].append(one.difference)
    return [
        {
            "kind": kind,
            **{
                oracle: {
                    "compared": len(grouped[kind, oracle]),
                    "largest": max(grouped[kind, oracle]),
                }
                for oracle in ("PEFT", "adapters", "dense model")
                if grouped[kind, oracle]
            },
        }
        for kind in PET_KINDS
    ]


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows as the page of kinds has them."""
    oracles = ("PEFT", "adapters", "dense model")
    print(f"| kind | {' | '.join(oracles)} |")
    print("|---|---|---|---|")
    for row in rows:
        cells = (
            f"{row[name]['compared']}: {row[name]['largest']:.1e}" if name in row else ""
            for name in oracles
        )
        print(f"| `{row['kind']}` | {' | '.join(cells)} |")


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description="Parity of the engine, kind by kind.")
    parser.add_argument("--json", action="store_true", help="one JSON document on the last line")
    as_json = parser.parse_args().json
    warnings.simplefilter("ignore")  # PEFT and transformers warn of one another
    torch.set_num_threads(1)
    found = [*beside_peft(), *beside_adapters(), *beside_dense_models()]
    rows = by_kind(found)
    largest = {
        oracle: max(
            one.difference for one in found if one.oracle == oracle and one.variant != ROUNDED
        )
        for oracle in ("PEFT", "adapters", "dense model")
    }
    goals = [
        Goal(f"difference from {oracle}", GOAL, value, "of the largest logit", "at most")
        for oracle, value in largest.items()
    ]
    if as_json:
        print(json.dumps(make_document([*rows, *(one._asdict() for one in found)], goals=goals)))
    else:
        print_table(rows)
        print({oracle: f"{value:.1e}" for oracle, value in largest.items()})


if __name__ == "__main__":
    main()
