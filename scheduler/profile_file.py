"""Profiles: measured cost models, one JSON file per backbone, written by `petstream profile`.

The file says where its numbers are from (device, dtype, threads, versions, commit), since they hold
nowhere else.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from messages.validation_fault import first_fault
from scheduler.cost_model import CostModel, CostTable

Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Table = tuple[tuple[Milliseconds, ...], ...]
"""By rows, then by tokens per row."""


class ProfileError(ValueError):
    """A profile that cannot be read or makes no cost model; the message says what to do."""


class Profile(BaseModel):
    """What was measured of one backbone on one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    backbone: str = Field(min_length=1)
    device: str
    dtype: str
    threads: int = Field(ge=1)
    versions: dict[str, str]
    commit: str
    measured_at: str
    """ISO 8601, UTC."""
    repeats: int = Field(ge=1)
    """Each figure is the median of this many runs."""
    num_rows: tuple[int, ...]
    seq_lens: tuple[int, ...]
    alpha_ms: Table
    beta_ms: dict[str, Table] = Field(min_length=1)
    """By PET kind: the latency of one task's batch less that of the bare backbone."""

    def cost_model(self) -> CostModel:
        """Return the cost model of these tables.

        Raises:
            ProfileError: If the tables do not fit their grids.
        """
        try:
            alpha = CostTable.from_measured(self.num_rows, self.seq_lens, self.alpha_ms)
            beta = {
                kind: CostTable.from_measured(self.num_rows, self.seq_lens, table)
                for kind, table in self.beta_ms.items()
            }
        except ValueError as error:
            raise ProfileError(
                f"the profile of {self.backbone} makes no cost model: {error}"
            ) from error
        return CostModel(alpha, beta)


def read_profile(path: Path) -> Profile:
    """Read one profile.

    Raises:
        ProfileError: If the file is not there or is not a profile.
    """
    try:
        profile = Profile.model_validate_json(path.read_bytes())
        profile.cost_model()
    except OSError as error:
        raise ProfileError(
            f"cannot read {path}: {error.strerror}; run `petstream profile`"
        ) from error
    except ValidationError as error:
        raise ProfileError(
            f"{path} is not a profile ({first_fault(error, 'the file')}); "
            "run `petstream profile` again"
        ) from error
    return profile


def write_profile(profile: Profile, folder: Path) -> Path:
    """Write `<folder>/<backbone>.json`, replacing the older one at once or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{profile.backbone.replace('/', '--')}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(profile.model_dump(mode="json"), indent=1) + "\n")
    partial.replace(path)
    return path


def read_profiles(folder: Path) -> list[Profile]:
    """Read every profile of a folder, by backbone; a folder that is not there has none.

    Raises:
        ProfileError: If a file of it is not a profile.
    """
    profiles = [read_profile(path) for path in sorted(folder.glob("*.json"))]
    return sorted(profiles, key=lambda profile: profile.backbone)
