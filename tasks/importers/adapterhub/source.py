"""What the parsers of the methods work on."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import BackboneShape, LinearSite
from tasks.errors import WrongBackbone
from tasks.importers.adapterhub.places import Places
from tasks.importers.imported import Finding
from tasks.importers.ledger import Ledger
from tasks.importers.sources import BackboneWeights


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One adapter of the library: its tensors and where they stand."""

    name: str
    """The adapter's, part of each tensor's name."""
    places: Places
    shape: BackboneShape
    ledger: Ledger
    backbone: BackboneWeights
    is_early_task: bool = False
    """Of a version that knew types of adapters, and not one for a language."""
    findings: list[Finding] = field(default_factory=list)

    def layers(self, leave_out: list[int]) -> list[int]:
        """Return the layers that are not left out."""
        return [layer for layer in range(self.shape.num_layers) if layer not in leave_out]

    def weight_of(self, layer: int, site: LinearSite) -> NDArray[np.float32]:
        """Return the backbone's weight at a site.

        Raises:
            WrongBackbone: If the backbone has none of that name and shape.
        """
        name = f"{self.places.linear(layer, site)}.weight"
        found = self.backbone.get(name)
        if found is None or found.shape != self.shape.linear_shape(site):
            raise WrongBackbone(
                f"the backbone has no {name} of the shape that the checkpoint was trained on: "
                f"import it for the backbone that its configuration names"
            )
        return found

    def warn(self, code: str, message: str) -> None:
        """Tell something that may be wrong with the checkpoint."""
        self.findings.append(Finding("warning", code, message))
