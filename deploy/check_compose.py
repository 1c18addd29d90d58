"""Proves `compose.yaml` on a real engine: `python deploy/check_compose.py [--queries N]`.

Three runs of the demo against the running services, each while something happens to the small
level, and after each the demo's own account must say: every query answered once, none lost.

1. `docker compose kill -s SIGKILL worker-small` in the middle, then `up` again: a worker dies
   with a batch in its hands. (The engine does not restart what a person killed.)
2. `worker-small` scaled to two: both are members of the group and share its partitions.
3. One of the two killed in the middle: the other takes over.

It leaves the services running, scaled back to one. Needs Docker, and PetStream's own environment
for its Kafka client.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

ROOT = Path(__file__).resolve().parent.parent
BOOTSTRAP_SERVERS = f"localhost:{os.environ.get('PETSTREAM_KAFKA_PORT', '29092')}"
NAMESPACE = os.environ.get("PETSTREAM_NAMESPACE", "petstream")
LIMIT_S = 300.0


def compose(*arguments: str) -> str:
    """Run docker compose and return what it printed on standard output."""
    command = ["docker", "compose", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def wait_until(what: str, is_so: Callable[[], bool]) -> None:
    """Ask twice a second.

    Raises:
        TimeoutError: After five minutes.
    """
    deadline_s = time.monotonic() + LIMIT_S
    while not is_so():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {LIMIT_S:.0f} s: {what}")
        time.sleep(0.5)


def num_results() -> int:
    """Count the records of the results topic, transaction markers included."""
    consumer = Consumer({"bootstrap.servers": BOOTSTRAP_SERVERS, "group.id": "check-compose"})
    try:
        topic = f"{NAMESPACE}.results"
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        marks = [
            consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)
            for number in partitions
        ]
    finally:
        consumer.close()
    return sum(high - low for low, high in marks)


def partitions_of_members() -> list[int]:
    """Return how many batch partitions each small worker has."""
    group = f"{NAMESPACE}.workers.0"
    admin = AdminClient({"bootstrap.servers": BOOTSTRAP_SERVERS})
    description = admin.describe_consumer_groups([group], request_timeout=30)[group].result(40)
    return sorted(len(member.assignment.topic_partitions) for member in description.members)


def healthy_workers() -> list[str]:
    """Return the ids of the small workers that their health checks call healthy."""
    rows = compose("ps", "--format", "json", "worker-small").splitlines()
    return [row["ID"] for row in map(json.loads, rows) if row["Health"] == "healthy"]


def demo_with(queries: int, disturb: Callable[[], None]) -> dict[str, Any]:
    """Run the demo and disturb it after the first tenth of its answers.

    Raises:
        AssertionError: If its account does not come out even.
    """
    before = num_results()
    command = ["docker", "compose", "run", "--rm", "--no-deps", "-T", "demo"]
    arguments = ["demo", "--attach", "--queries", str(queries), "--json"]
    with subprocess.Popen([*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE) as demo:
        assert demo.stdout is not None
        wait_until("the first tenth", lambda: num_results() - before > queries // 10)
        assert num_results() - before < queries, "the demo was faster than the disturbance"
        disturb()
        report: dict[str, Any] = json.loads(demo.stdout.read())
    account = {name: report[name] for name in ("queries", "answered", "lost", "duplicates")}
    assert account == {"queries": queries, "answered": queries, "lost": 0, "duplicates": 0}, account
    return account


def kill_and_bring_back() -> None:
    """Kill every small worker as compose does it; bring them back."""
    compose("kill", "-s", "SIGKILL", "worker-small")
    compose("up", "-d", "--no-deps", "worker-small")


def kill_one() -> None:
    """Kill one small worker behind compose's back."""
    victim = healthy_workers()[0]
    subprocess.run(["docker", "kill", "--signal", "SIGKILL", victim], check=True)


def main() -> int:
    """Run the three demos."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--queries", type=int, default=3000, help="of each run")
    queries = parser.parse_args().queries
    compose("up", "-d", "--build", "worker-small", "worker-large", "scheduler")
    wait_until("worker-small is healthy", lambda: len(healthy_workers()) == 1)
    compose("run", "--rm", "--no-deps", "-T", "tasks")
    _say("killed and brought back", demo_with(queries, kill_and_bring_back))

    compose("up", "-d", "--no-deps", "--no-recreate", "--scale", "worker-small=2", "worker-small")
    wait_until("two workers are healthy", lambda: len(healthy_workers()) == 2)
    wait_until("both have partitions", lambda: len(partitions_of_members()) == 2)
    wait_until("both have half of them", lambda: partitions_of_members() == [6, 6])
    _say("scaled to two", {"partitions": partitions_of_members()})

    _say("one of two killed", demo_with(queries, kill_one))
    compose("up", "-d", "--no-deps", "--scale", "worker-small=1", "worker-small")
    return 0


def _say(what: str, facts: dict[str, Any]) -> None:
    sys.stdout.write(f"{what}: {json.dumps(facts)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
