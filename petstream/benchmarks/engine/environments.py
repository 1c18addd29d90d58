"""The Python environments that peers run in: which library is where, and what is not built."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from petstream.benchmarks.engine.cases import LIBRARY_OF

ROOT = Path(__file__).parents[3]
"""The checkout, where `make` puts environments."""


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter with some libraries, and the command that makes it."""

    python: Path
    command: str

    @property
    def is_built(self) -> bool:
        """Whether it is there."""
        return self.python.is_file()


_PRODUCT = Environment(Path(sys.executable), "make setup")
_PEERS = Environment(ROOT / ".venv-bench" / "bin" / "python", "make bench-env")
_ADAPTERHUB = Environment(ROOT / ".venv-oracles" / "bin" / "python", "make bench-env")

ENVIRONMENTS = {
    "petstream_engine": _PRODUCT,
    "transformers_models": _PRODUCT,
    "peft_adapters": _PEERS,
    "onnxruntime_models": _PEERS,
    "openvino_models": _PEERS,
    "adapterhub": _ADAPTERHUB,
}
"""Library -> where it runs."""


def left_out(systems: Sequence[str]) -> dict[str, str]:
    """Return the systems that cannot run here, each with the command that builds what it needs."""
    return {
        system: ENVIRONMENTS[LIBRARY_OF[system]].command
        for system in systems
        if not ENVIRONMENTS[LIBRARY_OF[system]].is_built
    }
