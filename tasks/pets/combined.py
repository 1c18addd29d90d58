"""Several PETs in one, such as MAM (He et al., ICLR 2022) and UniPELT (Mao et al., ACL 2022)."""

from typing import Annotated, Any, Literal

from numpy.typing import NDArray
from pydantic import Field

from tasks.backbone_shape import BackboneShape, Site
from tasks.pets.part_kinds import AnyPart
from tasks.pets.parts import decode_parts, encode_parts, parts_specs
from tasks.pets.pet import Pet, StoredFloat, Tensors, TensorSpec
from tasks.site_ops import SiteOps


class Combined(Pet):
    """All of its parts at once; ops at one place are joined."""

    kind: Literal["combined"] = "combined"
    parts: Annotated[tuple[AnyPart, ...], Field(min_length=2, max_length=8)]

    def reserved_positions(self) -> int:
        """Return the sum over the parts."""
        return sum(part.reserved_positions() for part in self.parts)

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """`parts.<number>.` and the names of each part."""
        return parts_specs(self.parts, shape)

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """Join the parts' ops.

        Raises:
            PartsConflict: If two parts cannot be joined.
        """
        return decode_parts(self.parts, shape, tensors)

    def encode(
        self, shape: BackboneShape, dense: Tensors, dtype: StoredFloat = "float16"
    ) -> dict[str, NDArray[Any]]:
        """Encode each part."""
        return encode_parts(self.parts, shape, dense, dtype)
