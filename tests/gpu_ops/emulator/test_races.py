"""The kernel tests once more, under ThreadSanitizer: races, whether or not they show in numbers.

Minutes, so a plain run leaves them out: `make test-races`.
"""

from pathlib import Path
from shutil import copytree

import pytest

from gpu_ops.grouped.kernel_file import KERNELS
from tests.gpu_ops.emulator.proof_kernels import (
    ADD_ROWS,
    MATRIX,
    SHIFT,
    TWO_TILES,
    name_of,
    without,
)
from tests.gpu_ops.emulator.sanitized import (
    RACE_EXIT_CODE,
    ROOT,
    THREAD,
    run_sanitized,
    what_is_missing_for,
)

pytestmark = pytest.mark.races

TESTS = ROOT / "tests" / "gpu_ops" / "grouped"
CHOSEN = "order0 and (9-520 or wide)"
"""The order does not matter here. Rows of two short tiles, and a width of several chunks."""
REPORT = "WARNING: ThreadSanitizer: data race"
BARRIER = "__syncthreads();"
IS_RIGHT = """
import sys
from tests.gpu_ops.emulator.proof_kernels import is_right
print([is_right(source, 0) for source in sys.argv[1:]])
"""
WITH_KERNELS = """
import sys
from pathlib import Path
import gpu_ops.grouped.kernel_file
gpu_ops.grouped.kernel_file.KERNELS = Path(sys.argv[1])
import pytest
sys.exit(pytest.main(sys.argv[2:]))
"""
"""Runs pytest on the kernels of another folder."""
PYTEST = ("-s", "-v", "-p", "no:cacheprovider")
"""With the sanitizer's words behind the name of the test, not in a file that is lost with it."""
USERS = {
    "low_rank.cu": ("test_low_rank.py", "order0 and bf16 and 16-24-3-9-520"),
    "tile_product.cuh": ("test_bottleneck.py", "order0 and bf16 and 16-72-9-520"),
    "sparse_delta.cu": ("test_sparse_delta.py", "order0 and bf16 and 9-520"),
}
"""Of each source with barriers: the tests, and which of them."""


@pytest.fixture(autouse=True)
def thread_sanitizer() -> None:
    """Each test needs it."""
    if missing := what_is_missing_for(THREAD):
        pytest.skip(missing)


def test_kernels_have_no_races() -> None:
    """No report, over all operators."""
    done = run_sanitized(THREAD, "-m", "pytest", *PYTEST, "-k", CHOSEN, str(TESTS))

    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_correct_kernels_give_no_report() -> None:
    """Barriers order lanes; launches order what is read after what was written."""
    done = run_sanitized(THREAD, "-c", IS_RIGHT, SHIFT, TWO_TILES, MATRIX, ADD_ROWS)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[True,", "True,", "True,", "True]"]
    assert REPORT not in done.stderr


@pytest.mark.parametrize(
    "planted",
    [
        pytest.param(without(BARRIER, SHIFT), id="barrier after filling"),
        pytest.param(without(f"{BARRIER}  // again", TWO_TILES), id="barrier before overwriting"),
        pytest.param(without("__syncwarp();  // filled", MATRIX), id="warp barrier after filling"),
        pytest.param(without("__syncwarp();  // stored", MATRIX), id="warp barrier after storing"),
        pytest.param(without("if (row < 3) ", ADD_ROWS), id="two blocks write one row"),
    ],
)
def test_planted_races_are_reported(planted: str) -> None:
    """The last one is right in every number: it adds 0 to the next block's row."""
    done = run_sanitized(THREAD, "-c", IS_RIGHT, planted)

    assert done.returncode == RACE_EXIT_CODE
    assert REPORT in done.stderr
    assert f"{name_of(planted)}.cu" in done.stderr


def barriers() -> list[tuple[str, int]]:
    """Return the source of each barrier in the kernels, and which of the source's it is."""
    return [
        (path.name, number)
        for path in sorted(KERNELS.glob("*.cu*"))
        for number in range(path.read_text().count(BARRIER))
    ]


@pytest.mark.parametrize(("source", "number"), barriers())
def test_every_barrier_of_the_kernels_is_missed(tmp_path: Path, source: str, number: int) -> None:
    """Taken out, it is reported."""
    copytree(KERNELS, tmp_path, dirs_exist_ok=True)
    parts = (KERNELS / source).read_text().split(BARRIER)
    before, after = BARRIER.join(parts[: number + 1]), BARRIER.join(parts[number + 1 :])
    (tmp_path / source).write_text(before + after)
    tests, chosen = USERS[source]

    done = run_sanitized(
        THREAD, "-c", WITH_KERNELS, str(tmp_path), *PYTEST, "-k", chosen, str(TESTS / tests)
    )

    assert done.returncode == RACE_EXIT_CODE, done.stdout + done.stderr
    assert REPORT in done.stderr
