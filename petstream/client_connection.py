"""How the client commands find their broker: as told, or whatever runs on this machine."""

from petstream import services_file
from petstream.kafka_connection import kafka_settings
from petstream.settings import Settings, load_settings
from producers.connection import Connection
from transport.embedded_broker.running import find_running


def client_connection(bootstrap_servers: str | None, namespace: str | None) -> Connection:
    """Return where a client command connects to.

    Flags, environment and file come first. Without them it is what `petstream up` runs here (its
    namespace too), then a broker that `petstream broker start` runs here.

    Raises:
        typer.Exit: If no broker is named and none runs here.
    """
    settings = load_settings().with_flags(bootstrap_servers=bootstrap_servers, namespace=namespace)
    settings = _with_local_broker(settings, keep_namespace=namespace is not None)
    return Connection(kafka_settings(settings), settings.namespace)


def _with_local_broker(settings: Settings, *, keep_namespace: bool) -> Settings:
    if settings.bootstrap_servers is not None:
        return settings
    services = services_file.read(settings.state_dir)
    if services is not None:
        return settings.with_flags(
            bootstrap_servers=services.bootstrap_servers,
            namespace=settings.namespace if keep_namespace else services.namespace,
        )
    broker = find_running(settings.state_dir)
    if broker is not None:
        return settings.with_flags(bootstrap_servers=broker.bootstrap_servers)
    return settings
