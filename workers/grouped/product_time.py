"""How long a device takes for a layer's products, by which precisions are compared."""

import time

import torch
from torch.nn import functional as F

from workers.backbone import PRODUCTS
from workers.grouped.device_backbone import DeviceBackbone

_TIMED_ROWS = 1024
_REPEATS = 5


def products_us_per_row(shared: DeviceBackbone) -> float:
    """Return the time of one layer's products, microseconds a row: the least of some runs."""
    weights = [shared.products[0, product].weight for product in PRODUCTS]
    inputs = [weight.new_zeros(_TIMED_ROWS, weight.shape[1]) for weight in weights]
    times_s = []
    for _ in range(1 + _REPEATS):
        _wait_for(shared.device)
        started_s = time.perf_counter()
        for x, weight in zip(inputs, weights, strict=True):
            F.linear(x, weight)
        _wait_for(shared.device)
        times_s.append(time.perf_counter() - started_s)
    return 1e6 * min(times_s[1:]) / _TIMED_ROWS


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
