"""`make bench`: every benchmark without a GPU, and nothing but their documents on its output."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_runs_every_benchmark_and_prints_documents_alone() -> None:
    commands = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "--always-make", "bench"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    scripts = {f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("bench_*.py")}
    assert set(re.findall(r"benchmarks/bench_\w+\.py", commands)) == (
        scripts - {"benchmarks/bench_gpu.py"}
    )
    assert re.search(r"petstream bench engine --json$", commands, re.MULTILINE)
    assert re.search(r"petstream models fetch >&2$", commands, re.MULTILINE)
    # `make` itself prints commands that do not begin with @.
    recipe = (ROOT / "Makefile").read_text().partition("\nbench:")[2].partition("\n\n")[0]
    assert all(line.startswith("\t@") for line in recipe.splitlines()[1:])
