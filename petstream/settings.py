"""Settings of the command line: flags over environment over `petstream.toml` over defaults.

Environment: `PETSTREAM_<FIELD>`, and `KAFKA_BOOTSTRAP_SERVERS`. Flags are laid over by the
commands themselves with `Settings.with_flags`.
"""

import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from petstream.output import warn
from workers.device_choice import DEVICE_CHOICE
from workers.machine_figures import FILE_NAME
from workers.precision import PrecisionChoice

FILE = "petstream.toml"

_NO_SETTINGS = {
    "PETSTREAM_DATA",
    "PETSTREAM_DEBUG",
    "PETSTREAM_DEMO_QUERIES",
    "PETSTREAM_EXAMPLES_DIR",
    "PETSTREAM_KAFKA_PORT",
}
"""Variables of ours that others than this module read."""


class BadSettings(ValueError):
    """Settings that cannot be used; the message is one line that names the setting."""


class Settings(BaseSettings):
    """Where things are and how delivery works."""

    model_config = SettingsConfigDict(
        env_prefix="PETSTREAM_",
        toml_file=FILE,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
    )

    bootstrap_servers: str | None = Field(
        default=None,
        min_length=1,
        validation_alias=AliasChoices("PETSTREAM_BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP_SERVERS"),
    )
    """None: the embedded broker, where it runs."""
    namespace: str = Field(default="petstream", pattern=r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\z")
    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    group_protocol: Literal["consumer", "classic"] = "consumer"
    """`consumer` needs brokers of 4.0 or later."""
    models_dir: Path = Path(platformdirs.user_cache_dir("petstream")) / "backbones"
    tasks_dir: Path = Path(platformdirs.user_data_dir("petstream")) / "tasks"
    state_dir: Path = Path(platformdirs.user_state_dir("petstream"))
    """Process table, logs and profiles of this machine."""
    figures_file: Path = Field(default_factory=lambda given: given["state_dir"] / FILE_NAME)
    """What was measured on this machine to choose the engine's ways by."""
    dtype: PrecisionChoice = "auto"
    """What workers compute in."""
    device: str = Field(default="cpu", pattern=rf"\A{DEVICE_CHOICE}\z")
    """What workers compute on."""
    kafka: dict[str, str] = Field(default_factory=dict)
    """Further client settings (security, for example); checked against an allow-list."""

    @field_validator("kafka", mode="before")
    @classmethod
    def _by_dotted_names(cls, given: object) -> object:
        """Take TOML's tables for what their dots mean: a key without quotes is a table in it."""
        return dict(_dotted(given)) if isinstance(given, Mapping) else given

    def with_flags(self, **flags: Any) -> "Settings":  # noqa: ANN401 - one per field
        """Lay the flags that were given (not None) over these settings.

        Raises:
            BadSettings: If a flag's value is bad.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        try:
            checked = type(self)(**{**dict(self), **given})
        except ValidationError as error:
            raise BadSettings(_first_of(error)) from error
        return self.model_copy(update={name: getattr(checked, name) for name in given})

    def environment(self) -> dict[str, str]:
        """Return this process's environment with these settings in it, for a child process."""
        given = {
            "PETSTREAM_NAMESPACE": self.namespace,
            "PETSTREAM_DELIVERY": self.delivery,
            "PETSTREAM_GROUP_PROTOCOL": self.group_protocol,
            "PETSTREAM_MODELS_DIR": str(self.models_dir),
            "PETSTREAM_TASKS_DIR": str(self.tasks_dir),
            "PETSTREAM_STATE_DIR": str(self.state_dir),
            "PETSTREAM_FIGURES_FILE": str(self.figures_file),
            "PETSTREAM_KAFKA": json.dumps(self.kafka),
        }
        if self.bootstrap_servers is not None:
            given["PETSTREAM_BOOTSTRAP_SERVERS"] = self.bootstrap_servers
        return {**os.environ, **given}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of the sources: arguments, environment, file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings() -> Settings:
    """Read the settings of this process, and warn of variables that look like some but are none.

    Raises:
        BadSettings: If a value is bad, a key of the file is unknown or the file is no TOML.
    """
    for name in unknown_variables(os.environ):
        warn(f"{name} is no setting and is not used; `docs/running.md` lists them")
    try:
        return Settings()
    except ValidationError as error:
        raise BadSettings(_first_of(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{FILE} is no TOML: {error}") from error
    except OSError as error:
        raise BadSettings(f"{FILE} cannot be read: {error.strerror}") from error
    except SettingsError as error:
        # Raised for a variable whose value is not the JSON that its field needs.
        fields = (name for name in Settings.model_fields if f'"{name}"' in str(error))
        variable = f"PETSTREAM_{next(fields).upper()}"
        raise BadSettings(f"{variable} is no JSON: {error.__cause__}") from error


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Return the names that begin as settings do and are none, most likely misspelt."""
    known = {f"PETSTREAM_{name.upper()}" for name in Settings.model_fields} | _NO_SETTINGS
    return sorted(name for name in names if name.startswith("PETSTREAM_") and name not in known)


def _dotted(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield what is in a table and the tables in it, under names such as `security.protocol`."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _first_of(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    # Under an alias the setting is the same.
    name = "bootstrap_servers" if where.endswith("BOOTSTRAP_SERVERS") else where
    return f"bad setting {name}: {first['msg']}"
