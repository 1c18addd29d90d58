"""Client settings: the allow-list, the promises in the dictionaries, the secrets."""

from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from pydantic import ValidationError

from messages.limits import MAX_BATCH_BYTES
from transport.client_keys import ALLOWED_KEYS
from transport.errors import ConfigKeyForbidden
from transport.settings import TRANSACTION_TIMEOUT_MS, ClientDict, KafkaSettings

NOWHERE = "127.0.0.1:1"


def _settings(**extra: str) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=NOWHERE, extra={key.replace("_", "."): v for key, v in extra.items()}
    )


def _all_dictionaries(settings: KafkaSettings) -> list[ClientDict]:
    return [
        settings.consumer("g", prefetch="many"),
        settings.consumer("g", prefetch="few"),
        settings.transactional_producer("t"),
        settings.idempotent_producer(),
        settings.query_producer(),
        settings.reader(),
        settings.reader(group="g", start="earliest"),
        settings.admin(),
    ]


@pytest.mark.parametrize(
    "key",
    [
        "plugin.library.paths",
        "ssl.engine.location",
        "ssl.providers",
        "sasl.kerberos.kinit.cmd",
        "sasl.oauthbearer.token.endpoint.url",
        "enable.ssl.certificate.verification",
        "ssl.endpoint.identification.algorithm",
        "debug",
        "acks",
        "enable.auto.commit",
        "auto.offset.reset",
        "isolation.level",
        "transactional.id",
        "bootstrap.servers",
        "no.such.key",
        "",
        "Security.Protocol",
    ],
)
def test_forbidden_key_is_named(key: str) -> None:
    """A key off the allow-list is refused with an error that names it."""
    with pytest.raises(ConfigKeyForbidden, match="is not allowed") as caught:
        KafkaSettings(bootstrap_servers=NOWHERE, extra={"client.rack": "r1", key: "x"})

    assert caught.value.key == key
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", sorted(ALLOWED_KEYS))
def test_allowed_keys_are_librdkafkas(key: str) -> None:
    """Each allowed key is one that librdkafka knows: it may dislike the value, not the name."""
    assert "No such configuration property" not in _complaint(key)


def _complaint(key: str) -> str:
    try:
        Producer({"bootstrap.servers": NOWHERE, "log_level": 0, key: "1"})
    except KafkaException as error:
        return str(error)
    return ""


def test_allowed_keys_reach_every_client() -> None:
    """Security and network settings are in every dictionary."""
    for dictionary in _all_dictionaries(_settings(client_rack="r1", sasl_username="me")):
        assert dictionary["client.rack"] == "r1"
        assert dictionary["sasl.username"] == "me"


def test_certificates_are_always_verified() -> None:
    """No dictionary leaves the broker's identity unchecked."""
    for dictionary in _all_dictionaries(_settings(security_protocol="SASL_SSL")):
        assert dictionary["enable.ssl.certificate.verification"] is True
        assert dictionary["ssl.endpoint.identification.algorithm"] == "https"


def test_secrets_are_not_shown() -> None:
    """Neither repr nor str of the settings holds a password or a key."""
    settings = _settings(sasl_password="hunter2", ssl_key_pem="hunter2", sasl_username="me")

    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)
    assert "'me'" in repr(settings)


def test_password_is_read_from_its_file(tmp_path: Path) -> None:
    """`sasl.password.file` names a mounted secret; its last line break is not part of it."""
    secret = tmp_path / "password"
    secret.write_text("pass word \n")

    dictionary = _settings(sasl_password_file=str(secret)).admin()

    assert dictionary["sasl.password"] == "pass word "
    assert "sasl.password.file" not in dictionary


def test_unknown_field_is_refused() -> None:
    """A misspelt setting is an error, not a default."""
    with pytest.raises(ValidationError):
        KafkaSettings.model_validate({"bootstrap_servers": NOWHERE, "delivry": "exactly_once"})
    with pytest.raises(ValidationError):
        KafkaSettings(bootstrap_servers="")


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_librdkafka_accepts_every_dictionary(protocol: str) -> None:
    """No dictionary conflicts in itself, with either group protocol."""
    settings = KafkaSettings.model_validate(
        {"bootstrap_servers": NOWHERE, "group_protocol": protocol}
    )
    for dictionary in _all_dictionaries(settings):
        quiet = dictionary | {"log_level": 0}
        if "group.id" in dictionary:
            Consumer(quiet).close()
        else:
            Producer(quiet)


def test_consumers_never_commit_or_skip_by_themselves() -> None:
    """Offsets move only with the answers, and expired offsets are an error."""
    for prefetch in ("many", "few"):
        dictionary = _settings().consumer("g", prefetch=prefetch)

        assert dictionary["enable.auto.commit"] is False
        assert dictionary["enable.auto.offset.store"] is False
        assert dictionary["auto.offset.reset"] == "error"
        assert dictionary["isolation.level"] == "read_committed"
        assert dictionary["allow.auto.create.topics"] is False


def test_messages_time_out_before_their_transaction() -> None:
    """A record must be given up before the transaction that holds it."""
    dictionary = _settings().transactional_producer("t")

    assert dictionary["message.timeout.ms"] < dictionary["transaction.timeout.ms"]
    assert dictionary["transaction.timeout.ms"] == TRANSACTION_TIMEOUT_MS
    assert dictionary["message.max.bytes"] == MAX_BATCH_BYTES


def test_client_ids_are_unique() -> None:
    """Equal client ids make librdkafka's cooperative groups loop."""
    ids = [dictionary["client.id"] for dictionary in _all_dictionaries(_settings())]

    assert len(set(ids)) == len(ids)
