"""Free TCP ports of the loopback address."""

import random
import socket

HOST = "127.0.0.1"

# Below the range from which systems take the local ports of outgoing connections (32768 and up
# on Linux, 49152 and up elsewhere). A port from that range may be taken by any client while the
# broker restarts; worse, a client that reconnects to it in a loop may connect to itself.
_PORTS = range(20000, 32768)


def is_free(port: int) -> bool:
    """Tell whether a server may listen on the port now."""
    with socket.socket() as probe:
        # As Java does: connections of a dead broker in TIME_WAIT do not keep the port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port(*, avoid: int | None = None) -> int:
    """Return a port that nobody listens on.

    Another process may take it before it is used: whoever starts a server on it must be ready
    to try another.

    Args:
        avoid: A port not to return.

    Raises:
        OSError: If no port is free.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        if port != avoid and is_free(port):
            return port
    raise OSError(f"no free port between {_PORTS.start} and {_PORTS.stop - 1}")


def is_listening(port: int) -> bool:
    """Tell whether something accepts connections on the port."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0):
            return True
    except OSError:
        return False
