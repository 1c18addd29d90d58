"""Records that confluent-kafka's producer cannot make, by librdkafka's C interface."""

import ctypes
from pathlib import Path

import confluent_kafka

from transport.settings import KafkaSettings

_END, _TOPIC, _PARTITION, _VALUE, _KEY, _HEADER = (ctypes.c_int(tag) for tag in (0, 1, 3, 4, 5, 9))
"""`rd_kafka_vtype_t`."""


def append_with_header(
    settings: KafkaSettings,
    topic: str,
    header_name: bytes,
    *,
    value: bytes,
    key: bytes,
    partition: int = 0,
) -> None:
    """Publish a record with a header whose name may be any bytes, and wait until it is there."""
    folder = Path(confluent_kafka.__file__).parent.with_name("confluent_kafka.libs")
    library = ctypes.CDLL(str(next(folder.glob("librdkafka*"))))
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    library.rd_kafka_conf_new.restype = pointer
    library.rd_kafka_conf_set.argtypes = [pointer, text, text, pointer, size]
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_new.argtypes = [ctypes.c_int, pointer, pointer, size]
    library.rd_kafka_producev.argtypes = [pointer]
    library.rd_kafka_flush.argtypes = [pointer, ctypes.c_int]
    library.rd_kafka_destroy.argtypes = [pointer]
    config = library.rd_kafka_conf_new()
    servers = settings.bootstrap_servers.encode()
    library.rd_kafka_conf_set(config, b"bootstrap.servers", servers, None, 0)
    producer = library.rd_kafka_new(0, config, None, 0)
    error = library.rd_kafka_producev(
        producer,
        *(_TOPIC, text(topic.encode())),
        *(_PARTITION, ctypes.c_int32(partition)),
        *(_VALUE, text(value), size(len(value))),
        *(_KEY, text(key), size(len(key))),
        *(_HEADER, text(header_name), text(b"v"), ctypes.c_ssize_t(1)),
        _END,
    )
    assert error == 0
    assert library.rd_kafka_flush(producer, 60_000) == 0
    library.rd_kafka_destroy(producer)
