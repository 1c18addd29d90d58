"""Which partition of a pool's batch topic a batch goes to: the one with least work before it.

A partition is read by one worker, so the work outstanding on it is how long a batch would wait.
"""

from collections.abc import Mapping


class Placement:
    """Predicted work outstanding on each partition, in milliseconds.

    `pick` is called on the compute thread, `observe` from wherever the backlog is measured: the
    list is replaced as a whole, never changed by two threads, and a pick that falls between
    reading and replacing is only a little more work than was counted.
    """

    def __init__(self, num_partitions: int) -> None:
        if num_partitions < 1:
            raise ValueError(f"expected at least one partition, got {num_partitions}")
        self._outstanding_ms = [0.0] * num_partitions
        self._picked_ms = 0.0
        self._num_picked = 0

    def pick(self, predicted_ms: float) -> int:
        """Return the partition for a batch, and count the batch as outstanding there.

        Of equals the lowest number is taken, so that the same windows give the same places.
        """
        outstanding_ms = self._outstanding_ms
        partition = outstanding_ms.index(min(outstanding_ms))
        outstanding_ms[partition] += predicted_ms
        self._picked_ms += predicted_ms
        self._num_picked += 1
        return partition

    def observe(self, num_batches: Mapping[int, int]) -> None:
        """Correct the count by what was measured.

        Args:
            num_batches: Batches not yet run, by partition; a partition left out has none. Each
                counts as much as the batches of this process did on average.
        """
        mean_ms = self._picked_ms / self._num_picked if self._num_picked else 1.0
        self._outstanding_ms = [
            num_batches.get(partition, 0) * mean_ms
            for partition in range(len(self._outstanding_ms))
        ]
