"""Settings of the command line: flags over environment over `petstream.toml` over defaults.

Environment: `PETSTREAM_<FIELD>`, and `KAFKA_BOOTSTRAP_SERVERS`. Flags are laid over by the
commands themselves with `Settings.with_flags`.
"""

import json
import os
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import AliasChoices, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


class Settings(BaseSettings):
    """Where things are and how delivery works."""

    model_config = SettingsConfigDict(
        env_prefix="PETSTREAM_",
        toml_file="petstream.toml",
        extra="forbid",
        frozen=True,
        populate_by_name=True,
    )

    bootstrap_servers: str | None = Field(
        default=None,
        validation_alias=AliasChoices("PETSTREAM_BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP_SERVERS"),
    )
    """None: the embedded broker, where it runs."""
    namespace: str = Field(default="petstream", pattern=r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\z")
    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    models_dir: Path = Path(platformdirs.user_cache_dir("petstream")) / "backbones"
    tasks_dir: Path = Path(platformdirs.user_data_dir("petstream")) / "tasks"
    state_dir: Path = Path(platformdirs.user_state_dir("petstream"))
    """Process table, logs and profiles of this machine."""
    kafka: dict[str, str] = Field(default_factory=dict)
    """Further client settings (security, for example); checked against an allow-list."""

    def with_flags(self, **flags: Any) -> "Settings":  # noqa: ANN401 - one per field
        """Lay the flags that were given (not None) over these settings."""
        return self.model_copy(update={k: v for k, v in flags.items() if v is not None})

    def environment(self) -> dict[str, str]:
        """Return this process's environment with these settings in it, for a child process."""
        given = {
            "PETSTREAM_NAMESPACE": self.namespace,
            "PETSTREAM_DELIVERY": self.delivery,
            "PETSTREAM_MODELS_DIR": str(self.models_dir),
            "PETSTREAM_TASKS_DIR": str(self.tasks_dir),
            "PETSTREAM_STATE_DIR": str(self.state_dir),
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
    """Read the settings of this process.

    Raises:
        pydantic.ValidationError: If a value or an unknown key of the file is bad.
    """
    return Settings()
