"""Which queries a load run sends, and when: seeded, so that a run can be repeated exactly.

Pure: no clock and no Kafka. Arrivals are a Poisson process (many callers who know nothing of each
other), tasks follow Zipf's law (a few are asked often, most are rare), and texts are drawn from
given rows, so that lengths are those of real data.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Row:
    """One text, or a pair of texts, that a task may be asked about."""

    text: str
    text_pair: str | None = None


@dataclass(frozen=True, slots=True)
class PlannedQuery:
    """A query of a load run, and its place in time."""

    at_s: float
    """Seconds after the start of the run."""
    task: str
    row: Row


def poisson_arrivals_s(rate_per_s: float, count: int, seed: int) -> NDArray[np.float64]:
    """Return `count` arrival times of a Poisson process, ascending, in seconds from 0.

    Raises:
        ValueError: If the rate is not positive.
    """
    if not rate_per_s > 0:
        raise ValueError(f"expected a positive rate, got {rate_per_s}")
    gaps = np.random.default_rng(seed).exponential(1.0 / rate_per_s, size=count)
    return np.cumsum(gaps)


def zipf_shares(num_tasks: int, exponent: float) -> NDArray[np.float64]:
    """Return the share of each task, by rank: proportional to `rank ** -exponent`, sum 1.

    Exponent 0 asks all tasks equally often.

    Raises:
        ValueError: If there is no task or the exponent is negative.
    """
    if num_tasks < 1 or exponent < 0:
        raise ValueError(f"expected tasks and an exponent >= 0, got {num_tasks} and {exponent}")
    weights: NDArray[np.float64] = np.arange(1, num_tasks + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()


def plan_load(
    rows_by_task: Mapping[str, Sequence[Row]],
    *,
    rate_per_s: float,
    count: int,
    zipf_exponent: float = 1.0,
    seed: int = 0,
) -> Iterator[PlannedQuery]:
    """Plan `count` queries; tasks rank in the order of `rows_by_task`.

    Raises:
        ValueError: If a task has no rows, or as in `poisson_arrivals_s` and `zipf_shares`.
    """
    empty = [task for task, rows in rows_by_task.items() if not rows]
    if empty:
        raise ValueError(f"expected rows for every task, got none for {', '.join(empty)}")
    tasks = list(rows_by_task)
    shares = zipf_shares(len(tasks), zipf_exponent)
    arrivals_s = poisson_arrivals_s(rate_per_s, count, seed)
    # A stream of its own for each choice: a change of the rate must not change the texts.
    choices = np.random.default_rng([seed, 1])
    task_of = choices.choice(len(tasks), size=count, p=shares)
    draws = np.random.default_rng([seed, 2]).random(count)
    for at_s, task_index, draw in zip(arrivals_s, task_of, draws, strict=True):
        task = tasks[task_index]
        rows = rows_by_task[task]
        yield PlannedQuery(float(at_s), task, rows[int(draw * len(rows))])
