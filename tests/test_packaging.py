"""The import names are ours, and the base install needs no GPU library."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
BASE_INSTALL_LIMIT_MB = 150
PACKAGES = [
    "messages",
    "gpu_ops",
    "transport",
    "tasks",
    "producers",
    "scheduler",
    "workers",
    "petstream",
]


@pytest.mark.parametrize("package", PACKAGES)
def test_import_name_is_ours(package: str) -> None:
    """No other installed distribution provides the same import name."""
    owners = set(packages_distributions().get(package, [])) - {"petstream"}
    spec = find_spec(package)

    assert owners == set()
    assert spec is not None
    assert spec.origin is not None
    assert (Path(spec.origin).parent / "py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_package_says_what_lives_in_it(package: str) -> None:
    """Every folder opens with a docstring."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None

    assert Path(spec.origin).read_text().startswith('"""')


@pytest.mark.parametrize(
    "module",
    [
        "producers.client",
        "producers.async_client",
        "producers.load",
        "scheduler.service",
        "transport.session",
        "transport.embedded_broker",
        "petstream.commands.query",
        "petstream.commands.produce",
        "petstream.commands.results",
        "petstream.commands.scheduler",
        "petstream.commands.tasks",
        "petstream.commands.demo",
        "petstream.commands.status",
    ],
)
def test_base_install_needs_no_tensor_library(module: str) -> None:
    """What the base install offers imports without torch, transformers and scikit-learn."""
    check = (
        f"import sys, {module}\n"
        "heavy = {'torch', 'cupy', 'transformers', 'sklearn', 'scipy'} & sys.modules.keys()\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )

    ended = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)

    assert ended.returncode == 0, ended.stderr


def _base_install() -> dict[str, Distribution]:
    """Return the distributions that petstream without extras installs, by name."""
    found: dict[str, Distribution] = {}
    wanted = ["petstream"]
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found[name] = Distribution.from_name(name)
        for line in found[name].requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return found


def test_base_install_is_small() -> None:
    """Client, scheduler and command line come without torch and under 150 MB."""
    num_bytes = sum(
        Path(str(distribution.locate_file(file))).stat().st_size
        for distribution in _base_install().values()
        for file in distribution.files or []
        if Path(str(distribution.locate_file(file))).is_file()
    )

    assert 30e6 < num_bytes < BASE_INSTALL_LIMIT_MB * 1e6


@pytest.mark.parametrize(
    ("script", "remedy"),
    [("exit 1", "Python 3.11 to 3.13"), ('[ "$1" = -c ]', "apt-get install python3-venv")],
    ids=["no python", "no venv"],
)
def test_make_says_in_one_line_what_is_missing(tmp_path: Path, script: str, remedy: str) -> None:
    """Without a fitting Python, or without its venv module, the user learns what to install."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)

    ended = subprocess.run(
        ["make", "--silent", "setup", f"PYTHON={python}"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )

    assert ended.returncode != 0
    said = [line for line in ended.stderr.splitlines() if "Error 1" not in line]
    assert len(said) == 1
    assert remedy in said[0]


def test_wheel_has_the_sources_of_compiled_operators(tmp_path: Path) -> None:
    """They are compiled where it is installed; what was compiled here stays here."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)

    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    folder = ROOT / "gpu_ops" / "compiled"
    sources = {f"gpu_ops/compiled/{path.name}" for path in folder.glob("*.*")}
    assert {"gpu_ops/compiled/attention.cpp", "gpu_ops/compiled/vector.h"} < sources <= names
    assert not any(name.endswith(".so") for name in names)
