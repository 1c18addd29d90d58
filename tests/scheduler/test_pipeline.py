"""Window and stage in the real loop, on the in-memory log: nothing lost, nothing twice."""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from messages.answer_codec import decode_answer
from messages.batch_codec import decode_batch
from messages.query import Query
from messages.query_codec import encode_query
from scheduler.planning import PlanLimits
from scheduler.window import SchedulingWindow, WindowLimits
from tests.scheduler.stages import TOPICS, make_stage
from transport.memory import MemoryLog
from transport.pipeline import run_pipeline

NUM_QUERIES = 300


class _Crash(Exception):
    pass


def _log_with_queries() -> MemoryLog:
    log = MemoryLog()
    for topic in (TOPICS.queries, TOPICS.escalations, TOPICS.results, TOPICS.dead_letters):
        log.create_topic(topic, 4)
    for level in (0, 1):
        log.create_topic(TOPICS.batches(level), 4)
    for number in range(NUM_QUERIES):
        task = ("banking77", "snips", "nobody")[number % 3]
        message = encode_query(Query(f"q{number}", task, "hello world"))
        log.append(TOPICS.queries, message.value, f"q{number}".encode(), message.headers)
    return log


def _settled(log: MemoryLog) -> Counter[str]:
    """Count for every query the visible rows and answers."""
    ids = [
        row.query_id
        for record in log.read(TOPICS.batches(0))
        for row in decode_batch(record.value).rows
    ]
    ids += [decode_answer(r.value, r.headers).id for r in log.read(TOPICS.results)]
    return Counter(ids)


def _run(
    log: MemoryLog, models_dir: Path, *, before_commit: Callable[[], None] = lambda: None
) -> None:
    """Run one scheduler until it crashes, or until every query is settled."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            if sum(_settled(log).values()) >= NUM_QUERIES:
                stop.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run_pipeline(
            log.session("g", (TOPICS.queries, TOPICS.escalations), "g.0", before_commit),
            SchedulingWindow(WindowLimits(max_wait_ms=1.0, max_rows=40)),
            make_stage(models_dir, limits=PlanLimits(max_batch_rows=16)),
            stop=stop,
            commit_interval_ms=1.0,
        )
    finally:
        stop.set()
        watcher.join()


def test_every_query_is_settled_once(models_dir: Path) -> None:
    """Every query is settled once."""
    log = _log_with_queries()

    _run(log, models_dir)

    assert _settled(log) == Counter(f"q{number}" for number in range(NUM_QUERIES))
    assert len(log.read(TOPICS.dead_letters)) == NUM_QUERIES // 3
    assert sum(log.committed_offsets("g").values()) == NUM_QUERIES


@pytest.mark.parametrize("crash_at", [1, 3])
def test_a_crash_inside_a_transaction_loses_nothing_and_repeats_nothing(
    models_dir: Path, crash_at: int
) -> None:
    """The next process reads the same records again and plans them anew."""
    log = _log_with_queries()
    commits = 0

    def crash() -> None:
        nonlocal commits
        commits += 1
        if commits == crash_at:
            raise _Crash

    with pytest.raises(_Crash):
        _run(log, models_dir, before_commit=crash)
    assert sum(_settled(log).values()) < NUM_QUERIES
    _run(log, models_dir)

    assert _settled(log) == Counter(f"q{number}" for number in range(NUM_QUERIES))
    assert sum(log.committed_offsets("g").values()) == NUM_QUERIES
