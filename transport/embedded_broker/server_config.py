"""The broker's settings: one KRaft node, broker and controller in one process, on loopback."""

from pathlib import Path

from transport.embedded_broker.ports import HOST

NODE_ID = 1


def server_properties(log_dir: Path, port: int, controller_port: int) -> dict[str, str]:
    """Return the settings of a single-node Kafka 4 for development and tests.

    Args:
        log_dir: Where the broker keeps topics and metadata.
        port: The clients' port.
        controller_port: The port of the node's own controller.
    """
    listeners = f"BROKER://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}"
    return {
        "process.roles": "broker,controller",
        "node.id": str(NODE_ID),
        "listeners": listeners,
        "advertised.listeners": listeners,
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "BROKER",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.quorum.bootstrap.servers": f"{HOST}:{controller_port}",
        "log.dirs": str(log_dir),
        # A service never makes topics by accident: `petstream topics create` makes them.
        "auto.create.topics.enable": "false",
        # The defaults forbid sessions under 45 s: a killed worker's partitions would lie idle
        # for that long.
        "group.consumer.min.session.timeout.ms": "6000",
        "group.consumer.session.timeout.ms": "10000",
        "group.consumer.min.heartbeat.interval.ms": "1000",
        "group.consumer.heartbeat.interval.ms": "2000",
        "group.initial.rebalance.delay.ms": "0",
        # The controller takes a killed broker back only when its last session has run out.
        "broker.session.timeout.ms": "5000",
        "broker.heartbeat.interval.ms": "500",
        # An idle controller writes an empty record for its followers; there are none, and
        # the default of half a second keeps an idle broker busy.
        "metadata.max.idle.interval.ms": "5000",
        # One node: no replicas to wait for.
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # A first commit waits until these topics are made and loaded: few partitions, short wait.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.num.partitions": "4",
        # A dead process's open transaction holds back every read_committed reader until the
        # broker aborts it.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        # Memory: the default is a quarter of the whole heap.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "2",
    }


def format_properties(properties: dict[str, str]) -> str:
    """Write settings in Java's properties format."""
    return "".join(f"{key}={_escape(value)}\n" for key, value in properties.items())


def _escape(value: str) -> str:
    """Escape what Java's parser treats specially; it reads Latin-1, hence the Unicode escapes."""
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    units = escaped.encode("utf-16-be")
    codes = [int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2)]
    return "".join(chr(code) if 0x20 <= code < 0x7F else f"\\u{code:04x}" for code in codes)
