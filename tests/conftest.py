"""Fixtures of all tests: one real broker per test run, and a namespace per test."""

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings

from tests.kept_figures import figures_kept
from transport.embedded_broker import EmbeddedBroker

# It would hide that a command keeps what it prints in its buffer, as users' pipes see it.
os.environ.pop("PYTHONUNBUFFERED", None)

# How long an example takes says something of the machine, not of the code.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    """Keep what engines measure for the whole run; its processes read this variable."""
    kept = ExitStack()
    kept.enter_context(figures_kept())
    config.add_cleanup(kept.close)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run one process more than there are cores: each waits for brokers and children by turns."""
    return min(len(os.sched_getaffinity(0)) + 1, 4)


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """Bootstrap servers of a real Apache Kafka, started at first use for the whole run.

    Tests share it: use topics and group ids of your own (`namespace`). A test that kills a broker
    starts its own `EmbeddedBroker`.
    """
    with EmbeddedBroker() as embedded:
        yield embedded.bootstrap_servers


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test and no earlier run has used."""
    return f"test-{secrets.token_hex(6)}"
