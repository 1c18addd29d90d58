"""The operators' tests once more, under AddressSanitizer and UndefinedBehaviorSanitizer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_ops.compiled.build import compiler

ROOT = Path(__file__).parents[3]
OPERATORS = (
    *("attention", "gelu", "layer_norm", "sparse_delta", "low_rank", "bottleneck"),
    *("vectors", "product"),
)
CHOSEN = "generic and not generic-wide and (bf16 or test_product)"
"""One variant and the narrower type, where there are two: they share all but loads and stores."""


def runtimes() -> list[str]:
    """Return the sanitizers' libraries, which must be loaded before all others; none if missing."""
    command = compiler()
    if command is None:
        return []
    asked = [
        subprocess.run(
            [*command, f"-print-file-name={name}"], capture_output=True, text=True, check=False
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    return asked if all(Path(path).is_absolute() for path in asked) else []


@pytest.mark.slow
def test_operators_read_and_write_only_what_is_theirs() -> None:
    """No report from either sanitizer, over all operators."""
    libraries = runtimes()
    if not libraries:
        pytest.skip("no C++ compiler with sanitizers")
    environment = os.environ | {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PETSTREAM_SANITIZED_OPERATORS": "1",
    }
    tests = [str(ROOT / f"tests/gpu_ops/compiled/test_{name}.py") for name in OPERATORS]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CHOSEN, *tests],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
