"""Which queries a load run sends, and when: seeded, so that a run can be repeated exactly.

Pure: no clock and no Kafka. Arrivals are a Poisson process (many callers who know nothing of each
other), tasks follow Zipf's law (a few are asked often, most are rare), and queries are drawn from
given ones, so that lengths are those of real data.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from messages.query import Query
from producers.new_query import new_query_id


@dataclass(frozen=True, slots=True)
class TimedQuery:
    """A query and its place in time."""

    at_s: float | None
    """When it is to be sent, in seconds after the start of the run; None: as soon as it can be."""
    query: Query


def poisson_arrivals_s(rate_per_s: float, seed: int) -> Iterator[float]:
    """Yield the arrival times of a Poisson process, in seconds from 0, without end.

    Raises:
        ValueError: If the rate is not positive.
    """
    if not rate_per_s > 0:
        raise ValueError(f"expected a positive rate, got {rate_per_s}")
    generator = np.random.default_rng(seed)
    now_s = 0.0
    while True:
        now_s += generator.exponential(1.0 / rate_per_s)
        yield now_s


def zipf_shares(num_tasks: int, exponent: float) -> NDArray[np.float64]:
    """Return the share of each task, by rank: proportional to `rank ** -exponent`, sum 1.

    Exponent 0 asks all tasks equally often.

    Raises:
        ValueError: If there is no task or the exponent is negative.
    """
    if num_tasks < 1 or exponent < 0:
        raise ValueError(f"expected tasks and an exponent >= 0, got {num_tasks} and {exponent}")
    weights = np.arange(1, num_tasks + 1, dtype=np.float64) ** -exponent
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def in_order(
    queries: Iterable[Query], *, rate_per_s: float | None = None, seed: int = 0
) -> Iterator[TimedQuery]:
    """Give queries their times, in their order.

    Args:
        queries: May be endless; they are drawn from as they are wanted.
        rate_per_s: Mean arrivals per second of a Poisson process; None: no times.
        seed: Of the times.
    """
    if rate_per_s is None:
        return (TimedQuery(None, query) for query in queries)
    arrivals_s = poisson_arrivals_s(rate_per_s, seed)
    return (TimedQuery(at_s, query) for query, at_s in zip(queries, arrivals_s, strict=False))


def plan_load(
    queries: Sequence[Query],
    *,
    rate_per_s: float,
    count: int,
    zipf_exponent: float = 1.0,
    seed: int = 0,
    new_id: Callable[[], str] = new_query_id,
) -> Iterator[TimedQuery]:
    """Draw `count` queries from `queries`, each with an id of its own, and give them times.

    Args:
        queries: What may be asked. Tasks rank in the order of their first query.
        rate_per_s: Mean arrivals per second.
        count: How many.
        zipf_exponent: How unevenly the tasks are asked; see `zipf_shares`.
        seed: Of times, tasks and texts, each drawn from a stream of its own: a change of the
            rate does not change the texts.
        new_id: Makes the ids.

    Raises:
        ValueError: As in `poisson_arrivals_s` and `zipf_shares`.
    """
    by_task: dict[str, list[Query]] = {}
    for query in queries:
        by_task.setdefault(query.task, []).append(query)
    shares = zipf_shares(len(by_task), zipf_exponent)
    arrivals_s = islice(poisson_arrivals_s(rate_per_s, seed), count)
    task_of = np.random.default_rng([seed, 1]).choice(len(by_task), size=count, p=shares)
    draws = np.random.default_rng([seed, 2]).random(count)
    rows_of = list(by_task.values())
    for at_s, task_index, draw in zip(arrivals_s, task_of, draws, strict=True):
        rows = rows_of[task_index]
        yield TimedQuery(at_s, replace(rows[int(draw * len(rows))], id=new_id()))
