"""What a kernel would read wrongly is refused before it is launched."""

import pytest
import torch

from gpu_ops.grouped.bias_gelu import RowVectors
from gpu_ops.grouped.kernel_file import Kernels
from gpu_ops.grouped.masked_product import masked_product_
from gpu_ops.grouped.scale import scale_
from gpu_ops.grouped.segments import TileTable, tile_entries
from gpu_ops.grouped.sparse_delta import DELTA_ROWS, add_sparse_delta_, sparse_pool
from gpu_ops.sparse_delta import sparse_weights
from tests.gpu_ops.grouped.backend import emulated_backend

SLOTS = torch.zeros(4, dtype=torch.int32)


@pytest.fixture
def kernels() -> Kernels:
    """The emulator's: what is refused here never reaches them."""
    found = emulated_backend(0).kernels
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("y", "vectors", "slots", "error", "message"),
    [
        (torch.zeros(4, 8), torch.zeros(2, 8).half(), SLOTS, TypeError, "torch.float32, got"),
        (torch.zeros(4, 8), torch.zeros(2, 8), SLOTS.long(), TypeError, "torch.int32, got"),
        (torch.zeros(4, 8), torch.zeros(2, 16), SLOTS, ValueError, "expected shape"),
        (torch.zeros(4, 8), torch.zeros(2, 8), SLOTS[:3], ValueError, "expected shape"),
        (torch.zeros(4, 6), torch.zeros(2, 6), SLOTS, ValueError, "multiple of 16 bytes"),
        (torch.zeros(33)[1:].view(4, 8), torch.zeros(2, 8), SLOTS, ValueError, "aligned"),
        (torch.zeros(8, 4).t()[:4], torch.zeros(2, 8), SLOTS, ValueError, "contiguous"),
        (torch.zeros(4, 8).double(), torch.zeros(2, 8).double(), SLOTS, TypeError, "scale: exp"),
    ],
)
def test_tensors_that_do_not_fit(
    kernels: Kernels,
    y: torch.Tensor,
    vectors: torch.Tensor,
    slots: torch.Tensor,
    error: type[Exception],
    message: str,
) -> None:
    """Types, shapes, alignment, strides."""
    with pytest.raises(error, match=message):
        scale_(y, RowVectors(vectors, slots), kernels)


def test_tiles_of_a_size_without_a_kernel(kernels: Kernels) -> None:
    """Each size is an instance of its own."""
    x = torch.zeros(4, 8)
    tiles = TileTable(tile_entries([], 32, capacity=1), 32)

    with pytest.raises(ValueError, match="tiles of"):
        masked_product_(x, x, torch.zeros(8, 8), torch.zeros(1, 8, 1).byte(), tiles, kernels)


def test_inputs_that_the_sparse_kernel_would_place_outside(kernels: Kernels) -> None:
    """It turns columns within groups of eight."""
    x, y, weight = torch.zeros(4, 36), torch.zeros(4, 8), torch.zeros(8, 36)
    pool = sparse_pool(
        [sparse_weights(torch.tensor([35], dtype=torch.int32), None, (8, 36))], torch.float32
    )
    tiles = TileTable(tile_entries([], DELTA_ROWS, capacity=1), DELTA_ROWS)

    with pytest.raises(ValueError, match="groups of 8, got 36"):
        add_sparse_delta_(y, x, weight, pool, tiles, kernels)
