"""Which broker the commands talk to, and how: as told, or whatever runs on this machine."""

from confluent_kafka import KafkaException

from petstream import services_file
from petstream.output import fail
from petstream.settings import Settings, load_settings
from transport.admin import admin_client
from transport.embedded_broker.running import find_running
from transport.errors import ConfigKeyForbidden
from transport.settings import KafkaSettings


def broker_settings(bootstrap_servers: str | None, namespace: str | None) -> Settings:
    """Return the settings of a command that needs a broker.

    Flags, environment and file come first. Where they name no broker it is that of `petstream up`
    on this machine, then one that `petstream broker start` runs here.

    Raises:
        BadSettings: If a setting or a flag is bad.
    """
    settings = load_settings().with_flags(bootstrap_servers=bootstrap_servers, namespace=namespace)
    return with_local_broker(settings)


def with_local_broker(settings: Settings) -> Settings:
    """Name the broker of this machine where none is named, and the namespace served on it.

    A namespace that a flag, the environment or the file names is kept: it is a tenant's.
    """
    if settings.bootstrap_servers is not None:
        return settings
    services = services_file.read(settings.state_dir)
    if services is not None and services.bootstrap_servers:
        is_own = "namespace" in settings.model_fields_set
        return settings.with_flags(
            bootstrap_servers=services.bootstrap_servers,
            namespace=None if is_own else services.namespace,
        )
    broker = find_running(settings.state_dir)
    if broker is not None:
        return settings.with_flags(bootstrap_servers=broker.bootstrap_servers)
    return settings


def kafka_settings(settings: Settings) -> KafkaSettings:
    """Return the client settings of this machine's processes.

    Raises:
        typer.Exit: If no broker is named, or a client setting is not allowed or cannot be used.
    """
    if settings.bootstrap_servers is None:
        fail(
            "no broker: give --bootstrap-servers or KAFKA_BOOTSTRAP_SERVERS, "
            "or run `petstream up --detach` or `petstream broker start --detach`",
            code=2,
        )
    where = "correct [kafka] in petstream.toml or PETSTREAM_KAFKA"
    try:
        kafka = KafkaSettings(
            bootstrap_servers=settings.bootstrap_servers,
            delivery=settings.delivery,
            group_protocol=settings.group_protocol,
            extra=settings.kafka,
        )
        if settings.kafka:
            # librdkafka checks values, and reads certificates, only when a client is made.
            admin_client(kafka)
    except ConfigKeyForbidden as error:
        fail(f"{error}; {where}", code=2)
    except OSError as error:
        fail(f"cannot read {error.filename}: {error.strerror}; {where}", code=2)
    except KafkaException as error:
        fail(f"bad client setting: {error.args[0].str()}; {where}", code=2)
    return kafka
