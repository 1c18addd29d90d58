"""The import names are ours, and the base install needs no GPU library."""

import subprocess
import sys
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

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
