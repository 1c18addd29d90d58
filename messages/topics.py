"""Topic names of a namespace. A tenant is a namespace, guarded by prefix ACLs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopicNames:
    """The topics of one namespace."""

    namespace: str = "petstream"

    @property
    def queries(self) -> str:
        """Where producers publish."""
        return f"{self.namespace}.queries"

    @property
    def results(self) -> str:
        """Exactly one terminal record per query: a result or an error."""
        return f"{self.namespace}.results"

    @property
    def escalations(self) -> str:
        """Queries on their way to the next level."""
        return f"{self.namespace}.escalations"

    @property
    def dead_letters(self) -> str:
        """The raw bytes of what could not be answered."""
        return f"{self.namespace}.dead-letters"

    @property
    def tasks(self) -> str:
        """Compacted: one record per task name."""
        return f"{self.namespace}.tasks"

    def batches(self, level: int) -> str:
        """Macro-batches for the pool of `level`."""
        return f"{self.namespace}.batches.{level}"
