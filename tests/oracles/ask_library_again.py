"""Asks the adapters library about every committed checkpoint and compares with the goldens.

    .venv-oracles/bin/python -m tests.oracles.ask_library_again

The goldens are what our tests compare with; this shows that they are still what the library of
the environment answers. A checkpoint that the library itself does not reload is left out, by name.
"""

import logging
import sys
import warnings

import torch
import transformers

from tests.oracles.adapter_models import OracleModel, largest_gap
from tests.oracles.adapter_variants import VARIANTS
from tests.oracles.goldens import load_golden

TOLERANCE = 1e-5
"""Absolute, of logits of order 1: what another processor's sums may differ by."""


def main() -> None:
    """Compare all, print what differs and exit 1 if anything does."""
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.getLogger("adapters").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    largest, different, left_out = 0.0, [], []
    for variant in VARIANTS:
        golden = load_golden(variant.name)
        if not golden.library_reloads:
            left_out.append(variant.name)
            continue
        oracle = OracleModel.load(variant, golden.backbone, golden.checkpoint)
        wanted = [row.logits for row in golden.rows]
        scale = max(1.0, *(float(abs(row).max()) for row in wanted))
        gap = largest_gap(oracle.logits(), wanted) / scale
        largest = max(largest, gap)
        if gap > TOLERANCE:
            different.append(f"{variant.name} by {gap:.1e}")
    print(  # noqa: T201
        f"{len(VARIANTS) - len(left_out)} checkpoints, largest difference {largest:.1e} of the "
        f"largest logit; not reloaded by the library itself: {', '.join(left_out)}"
    )
    if different:
        sys.exit(f"the library answers otherwise than its goldens: {', '.join(different)}")


if __name__ == "__main__":
    main()
