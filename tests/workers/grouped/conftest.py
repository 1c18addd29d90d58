"""Engines on a device: each way to run them, on the CPU and on a GPU if there is one."""

from collections.abc import Iterator, Mapping

import pytest
import torch

from tests.kept_figures import kept_figures
from tests.workers.grouped.ways import Way, cuda, on_device_engine
from workers.engine import Engine
from workers.grouped.on_device import OnDevice

CPU = torch.device("cpu")
FLOAT32_TOLERANCES: Mapping[str, float] = {"cpu": 2e-5, "cuda": 2e-4}
"""Of logits, from those of the CPU engine. On the CPU both sum alike; a GPU's products sum in
orders of their own, of 384 and 1536 addends in each of three layers."""


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(("cpu", "grouped", 1), id="cpu"),
        pytest.param(("cpu", "per-task", 3), id="cpu-per-task-3-streams"),
        pytest.param(("cuda", "grouped", 1), id="cuda", marks=pytest.mark.gpu),
        pytest.param(("cuda", "grouped", 2), id="cuda-2-streams", marks=pytest.mark.gpu),
        pytest.param(("cuda", "per-task", 3), id="cuda-per-task-3-streams", marks=pytest.mark.gpu),
    ],
)
def way(request: pytest.FixtureRequest, small_engine: Engine) -> Iterator[Way]:
    """An engine of both types on the small backbone, in each way in turn."""
    on, unit, num_streams = request.param
    how = OnDevice(cuda() if on == "cuda" else CPU, unit=unit, num_streams=num_streams)
    engine = on_device_engine(small_engine.backbone, how)
    yield Way(engine, how, FLOAT32_TOLERANCES[on])
    engine.close()


@pytest.fixture(scope="session")
def rounded_engine(small_engine: Engine) -> Iterator[Engine]:
    """The CPU engine in bfloat16, with one compute thread."""
    engine = Engine(
        small_engine.backbone, threads=1, precisions=("bfloat16",), figures_file=kept_figures()
    )
    yield engine
    engine.close()
