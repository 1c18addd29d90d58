"""Which partition of a pool's batch topic a batch goes to: the one with least work before it.

A partition is read by one worker, so the work on it is how long a batch would wait. Workers of a
pool drain their partitions alike, so the least outstanding is where least was sent: predicted cost
is what is summed up, not batches, since one may be a hundred times another.
"""


class Placement:
    """Predicted work sent to each partition, in milliseconds, less what all of them got."""

    def __init__(self, num_partitions: int) -> None:
        if num_partitions < 1:
            raise ValueError(f"expected at least one partition, got {num_partitions}")
        self._sent_ms = [0.0] * num_partitions

    def pick(self, predicted_ms: float) -> int:
        """Return the partition for a batch, and count the batch as sent there.

        Of equals the lowest number is taken, so that the same windows give the same places.
        """
        least_ms = min(self._sent_ms)
        partition = self._sent_ms.index(least_ms)
        if least_ms > 0:
            self._sent_ms = [sent_ms - least_ms for sent_ms in self._sent_ms]
        self._sent_ms[partition] += predicted_ms
        return partition
