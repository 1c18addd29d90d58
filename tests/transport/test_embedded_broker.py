"""The embedded broker on the real thing: start, use, kill, restart, stop, and what goes wrong."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined] # the stubs hide two of them
    AdminClient,
    ConfigResource,
    NewTopic,
)

from transport.embedded_broker import EmbeddedBroker
from transport.embedded_broker.errors import (
    BrokerFailedError,
    BrokerStateError,
    BrokerTimeoutError,
    DataDirInUseError,
    JavaNotFoundError,
    PortTakenError,
)
from transport.embedded_broker.ports import HOST, free_port, is_free, is_listening

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture(scope="module")
def own_brokers() -> Iterator[list[EmbeddedBroker]]:
    """The brokers of this module's tests, stopped at its end."""
    brokers: list[EmbeddedBroker] = []
    yield brokers
    for broker in brokers:
        broker.stop()


@pytest.fixture
def own_broker(own_brokers: list[EmbeddedBroker]) -> EmbeddedBroker:
    """A running broker that the test may kill: the last test's, or a new one if that died."""
    if not own_brokers or not own_brokers[-1].is_running():
        own_brokers.append(EmbeddedBroker())
        own_brokers[-1].start()
    return own_brokers[-1]


def _create_topic(bootstrap_servers: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)


def _produce(bootstrap_servers: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap_servers, "enable.idempotence": True})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


def _consume(bootstrap_servers: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": topic,
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([topic])
    try:
        values: list[bytes] = []
        while len(values) < count:
            message = consumer.poll(30)
            assert message is not None, f"{len(values)} of {count} within 30 s"
            assert message.error() is None
            value = message.value()
            assert value is not None
            values.append(value)
        return values
    finally:
        consumer.close()


def test_shared_broker_serves_messages(broker: str, namespace: str) -> None:
    """What is produced comes back, in order, through a consumer group."""
    values = [f"{i}".encode() for i in range(500)]
    _create_topic(broker, namespace)

    _produce(broker, namespace, values)

    assert _consume(broker, namespace, len(values)) == values


def test_transaction_that_is_aborted_stays_invisible(broker: str, namespace: str) -> None:
    """It is no imitation: read_committed hides an aborted transaction."""
    _create_topic(broker, namespace)
    producer = Producer({"bootstrap.servers": broker, "transactional.id": namespace})
    producer.init_transactions(30)

    producer.begin_transaction()
    producer.produce(namespace, b"aborted")
    producer.flush(30)
    producer.abort_transaction(30)
    producer.begin_transaction()
    producer.produce(namespace, b"committed")
    producer.commit_transaction(30)

    assert _consume(broker, namespace, 1) == [b"committed"]


def test_broker_has_the_settings_that_recovery_rests_on(broker: str) -> None:
    """Sessions may be short, and no client makes topics by accident."""
    admin = AdminClient({"bootstrap.servers": broker})
    resource = ConfigResource(ConfigResource.Type.BROKER, "1")

    config = admin.describe_configs([resource])[resource].result(30)

    assert config["auto.create.topics.enable"].value == "false"
    assert config["group.consumer.session.timeout.ms"].value == "10000"
    assert config["group.consumer.heartbeat.interval.ms"].value == "2000"
    assert config["transaction.state.log.replication.factor"].value == "1"


def test_health_and_version_are_the_brokers_own(own_broker: EmbeddedBroker) -> None:
    """The broker tells its cluster and its version."""
    health = own_broker.health()
    version = own_broker.version()

    assert health.num_nodes == 1
    assert len(health.cluster_id) == 22
    assert version == ("Apache Kafka", "4.4.0")


def test_calls_out_of_order_are_refused(own_broker: EmbeddedBroker, tmp_path: Path) -> None:
    """Starting twice and using a broker that does not run are typed errors."""
    with pytest.raises(BrokerStateError, match="runs already"):
        own_broker.start()
    with pytest.raises(BrokerStateError, match=r"call start\(\) first"):
        EmbeddedBroker(tmp_path / "other").health()
    with pytest.raises(ValueError, match="needs a data_dir"):
        EmbeddedBroker(detach=True)


def test_second_broker_on_one_folder_is_refused(own_broker: EmbeddedBroker, namespace: str) -> None:
    """The error says whose folder it is, and the first broker goes on making topics."""
    with pytest.raises(DataDirInUseError, match="stop it first") as caught:
        EmbeddedBroker(own_broker.data_dir, free_port()).start()

    assert caught.value.log_path == own_broker.log_path
    _create_topic(own_broker.bootstrap_servers, namespace)


def test_frozen_broker_is_unhealthy_within_the_limit(own_broker: EmbeddedBroker) -> None:
    """A process that lives but does not answer is told from a healthy one."""
    os.kill(own_broker.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(BrokerTimeoutError, match="did not answer within 1 s"):
            own_broker.health(timeout_s=1.0)
    finally:
        os.kill(own_broker.process.pid, signal.SIGCONT)


def test_kill_and_restart_keep_address_and_data(own_broker: EmbeddedBroker, namespace: str) -> None:
    """After SIGKILL the broker comes back on its port with every acknowledged message."""
    bootstrap_servers = own_broker.bootstrap_servers
    values = [f"{i}".encode() for i in range(200)]
    _create_topic(bootstrap_servers, namespace)
    _produce(bootstrap_servers, namespace, values)
    first_pid = own_broker.process.pid

    own_broker.kill()

    assert not psutil.pid_exists(first_pid)
    assert not is_listening(_port_of(bootstrap_servers))
    assert own_broker.restart() == bootstrap_servers
    assert own_broker.process.pid != first_pid
    assert _consume(bootstrap_servers, namespace, len(values)) == values


def test_unasked_end_is_reported(own_broker: EmbeddedBroker) -> None:
    """A loop beside the broker learns of its death, with the log."""
    own_broker.check_process()
    java = psutil.Process(own_broker.process.pid)

    java.kill()
    deadline_s = time.monotonic() + 30
    while own_broker.is_running() and time.monotonic() < deadline_s:
        time.sleep(0.01)

    with pytest.raises(BrokerFailedError, match=r"ended unasked with status 137; .*broker\.log"):
        own_broker.check_process()
    assert not own_broker.is_running()


def test_broker_dies_with_its_launcher(own_broker: EmbeddedBroker) -> None:
    """A killed launcher does not set the broker free."""
    java = psutil.Process(own_broker.process.pid)

    java.parent().kill()

    assert psutil.wait_procs([java], timeout=30)[1] == []


def test_broker_dies_with_its_owner(tmp_path: Path) -> None:
    """An owner that gets SIGKILL leaves neither Java nor launcher behind."""
    program = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from transport.embedded_broker import EmbeddedBroker
        broker = EmbeddedBroker(Path({str(tmp_path)!r}))
        broker.start()
        print(broker.process.pid, flush=True)
        time.sleep(600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        java = psutil.Process(int(owner.stdout.readline()))
        launcher = java.parent()

        owner.kill()

        gone, alive = psutil.wait_procs([java, launcher], timeout=30)
    assert alive == []
    assert len(gone) == 2


def test_stop_is_in_order_and_the_folder_serves_again(tmp_path: Path, namespace: str) -> None:
    """SIGTERM lets Kafka close its logs and leaves no process; the next run has port and topics."""
    former = EmbeddedBroker(tmp_path)
    address = former.start()
    _create_topic(address, namespace)
    java = psutil.Process(former.process.pid)
    launcher = java.parent()

    former.stop()

    assert not java.is_running()
    assert not launcher.is_running()
    assert (tmp_path / "topics" / ".kafka_cleanshutdown").exists()
    assert is_free(_port_of(address))
    former.stop()
    with EmbeddedBroker(tmp_path) as later:
        topics = AdminClient({"bootstrap.servers": address}).list_topics(timeout=30).topics
        assert later.bootstrap_servers == address
        assert namespace in topics


def test_broker_moves_when_its_ports_were_taken_meanwhile(tmp_path: Path, namespace: str) -> None:
    """Ports of the last run are only a wish: the data is served on others, the controller's too."""
    with EmbeddedBroker(tmp_path) as former:
        former_address = former.bootstrap_servers
        _create_topic(former_address, namespace)
        _produce(former_address, namespace, [b"kept"])
    controller_port = json.loads((tmp_path / "ports.json").read_text())["controller_port"]

    with (
        socket.create_server((HOST, _port_of(former_address))),
        socket.create_server((HOST, controller_port)),
        EmbeddedBroker(tmp_path) as moved,
    ):
        assert moved.bootstrap_servers != former_address
        assert _consume(moved.bootstrap_servers, namespace, 1) == [b"kept"]


def test_temporary_data_goes_with_the_broker() -> None:
    """Without a data folder nothing is left after `stop`."""
    with EmbeddedBroker() as broker:
        data_dir = broker.data_dir
        assert (data_dir / "broker.log").exists()

    assert not data_dir.exists()


def test_wanted_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    """The error names the port and no Java was started."""
    port = free_port()

    with (
        socket.create_server((HOST, port)),
        pytest.raises(PortTakenError, match=f"port {port} of 127.0.0.1 is taken"),
    ):
        EmbeddedBroker(tmp_path, port).start()

    assert not (tmp_path / "topics").exists()


def test_failed_start_names_log_and_cause(tmp_path: Path) -> None:
    """Metadata of another node: the typed error carries the log's error line; nothing runs on."""
    broker = EmbeddedBroker(tmp_path)
    (tmp_path / "topics").mkdir()
    (tmp_path / "topics" / "meta.properties").write_text(
        "version=1\nnode.id=7\ncluster.id=P0000000000000000000AA\n"
    )

    with pytest.raises(BrokerFailedError) as caught:
        broker.start()

    first = caught.value.last_line.split(" | ")[0]
    assert caught.value.log_path == tmp_path / "broker.log"
    assert "node" in caught.value.last_line
    assert first in (tmp_path / "broker.log").read_text()
    assert str(tmp_path / "broker.log") in str(caught.value)
    assert first in str(caught.value)
    assert not broker.is_running()


def test_missing_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Java of the system the error says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)

    with pytest.raises(JavaNotFoundError, match=r"petstream\[broker\]"):
        EmbeddedBroker(tmp_path / "data", java="system").start()


def _port_of(bootstrap_servers: str) -> int:
    return int(bootstrap_servers.rpartition(":")[2])
