"""`config.json` of OpenDelta, and what the parsers of its methods work on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tasks.backbone_families import BackboneFamily
from tasks.backbone_shape import BackboneShape
from tasks.importers.imported import Finding
from tasks.importers.ledger import Ledger

Name = Annotated[str, Field(min_length=1, max_length=200)]


class DeltaConfig(BaseModel):
    """What a configuration says; the library leaves out what is its default, as here."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)

    delta_type: Name
    backbone_class: Name
    backbone_checkpoint_name: str | None = None
    backbone_hash: str | None = None
    opendelta_version: str | None = None
    modified_modules: list[str] | None = None
    non_linearity: Name = "gelu_new"
    lora_r: Annotated[int, Field(ge=1, le=1024)] = 8
    lora_alpha: Annotated[float, Field(gt=0, le=65536)] = 16
    bottleneck_dim: Annotated[int, Field(ge=1, le=4096)] = 24
    reduction_factor: Annotated[int, Field(ge=1, le=4096)] = 32
    low_rank_rank: Annotated[int, Field(ge=1, le=4096)] = 1
    prefix_token_num: Annotated[int, Field(ge=1, le=1024)] = 6
    reparameterize: bool = True
    embed_dim: Annotated[int, Field(ge=1, le=65536)] = 512
    mid_dim: Annotated[int, Field(ge=1, le=65536)] = 512
    soft_token_num: Annotated[int, Field(ge=1, le=1024)] = 100


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A checkpoint: its tensors and where they stand."""

    config: DeltaConfig
    names: BackboneFamily
    shape: BackboneShape
    ledger: Ledger
    findings: list[Finding] = field(default_factory=list)

    def modules_with(self, *endings: str) -> list[str]:
        """Return the modules in the base model under which a tensor with such an ending stands."""
        found: Mapping[str, None] = {
            name.removesuffix(f".{ending}"): None
            for name in self.ledger.names()
            for ending in endings
            if name.endswith(f".{ending}")
        }
        return list(found)

    def tell_layers(self, layers: set[int]) -> None:
        """Tell where a method is not in every layer, though nobody asked for that."""
        absent = sorted(set(range(self.shape.num_layers)) - layers)
        if layers and absent and not self.config.modified_modules:
            message = f"nothing in layers {absent[:10]}: the checkpoint may have been cut"
            self.findings.append(Finding("warning", "layers_absent", message))
