"""The contract suite's parameter: each test runs in memory and on the real broker."""

import pytest

from tests.contracts.backends import Backend, KafkaBackend, MemoryBackend


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def backend(request: pytest.FixtureRequest) -> Backend:
    """A log with topics `in` (3 partitions) and `out` (2 partitions)."""
    backend: Backend
    if request.param == "memory":
        backend = MemoryBackend()
    else:
        backend = KafkaBackend(
            request.getfixturevalue("broker"), request.getfixturevalue("namespace")
        )
    backend.create_topic("in", 3)
    backend.create_topic("out", 2)
    return backend
