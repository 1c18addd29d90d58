"""Which broker the commands talk to, and how."""

from petstream.output import fail
from petstream.settings import Settings
from transport.settings import KafkaSettings


def kafka_settings(settings: Settings) -> KafkaSettings:
    """Return the client settings of this machine's processes.

    Raises:
        typer.Exit: If no broker is named.
    """
    if settings.bootstrap_servers is None:
        fail(
            "no broker: give --bootstrap-servers or KAFKA_BOOTSTRAP_SERVERS, "
            "or run `petstream broker start`",
            code=2,
        )
    return KafkaSettings(
        bootstrap_servers=settings.bootstrap_servers,
        delivery=settings.delivery,
        extra=settings.kafka,
    )
