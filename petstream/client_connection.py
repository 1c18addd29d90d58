"""Where the client commands publish and read."""

from petstream.kafka_connection import broker_settings, kafka_settings
from producers.connection import Connection


def client_connection(bootstrap_servers: str | None, namespace: str | None) -> Connection:
    """Return where a client command connects to.

    Raises:
        BadSettings: If a setting or a flag is bad.
        typer.Exit: If no broker is named and none runs here.
    """
    settings = broker_settings(bootstrap_servers, namespace)
    return Connection(kafka_settings(settings), settings.namespace)
