"""The allow-list of client settings that a user may give.

Handing a user's dictionary to librdkafka as it is would be code execution
(`plugin.library.paths`, `ssl.engine.location` and `ssl.providers` load shared libraries,
`sasl.kerberos.kinit.cmd` runs a shell), a way into internal networks (OAuth URLs), or the silent
end of a delivery promise (`acks`, `enable.auto.commit`).
"""

from collections.abc import Mapping
from pathlib import Path

from transport.errors import ConfigKeyForbidden

ALLOWED_KEYS = frozenset(
    {
        "broker.address.family",
        "client.dns.lookup",
        "client.rack",
        "connections.max.idle.ms",
        "metadata.max.age.ms",
        "reconnect.backoff.max.ms",
        "reconnect.backoff.ms",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.password",
        "sasl.username",
        "security.protocol",
        "socket.connection.setup.timeout.ms",
        "socket.keepalive.enable",
        "socket.timeout.ms",
        "ssl.ca.location",
        "ssl.ca.pem",
        "ssl.certificate.location",
        "ssl.certificate.pem",
        "ssl.cipher.suites",
        "ssl.crl.location",
        "ssl.curves.list",
        "ssl.key.location",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.location",
        "ssl.keystore.password",
        "ssl.sigalgs.list",
    }
)
"""Security material, network tuning and nothing else."""

PASSWORD_FILE_KEY = "sasl.password.file"
"""Our own key: the file (a mounted secret) that holds `sasl.password`."""

_WHY = {
    "plugin.library.paths": "it loads code",
    "ssl.engine.location": "it loads code",
    "ssl.providers": "it loads code",
    "sasl.kerberos.kinit.cmd": "it runs a command",
    "enable.ssl.certificate.verification": "certificates are always verified",
    "debug": "debug logs hold secrets",
}
_SECRET_WORDS = ("password", "pem", "secret", "token")


def check_keys(extra: Mapping[str, str]) -> None:
    """Verify that a user's client settings are all on the allow-list.

    Raises:
        ConfigKeyForbidden: For the first one that is not.
    """
    for key in sorted(extra):
        if key not in ALLOWED_KEYS and key != PASSWORD_FILE_KEY:
            raise ConfigKeyForbidden(key, _WHY.get(key, "it is not on the allow-list"))


def with_password(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the settings for librdkafka, with the password read from its file.

    Raises:
        OSError: If the file cannot be read.
    """
    settings = {key: value for key, value in extra.items() if key != PASSWORD_FILE_KEY}
    if PASSWORD_FILE_KEY in extra:
        settings["sasl.password"] = Path(extra[PASSWORD_FILE_KEY]).read_text().rstrip("\r\n")
    return settings


def masked(settings: Mapping[str, object]) -> dict[str, object]:
    """Return the settings with every secret replaced, for logs."""
    return {
        key: "***" if any(word in key for word in _SECRET_WORDS) else value
        for key, value in settings.items()
    }
