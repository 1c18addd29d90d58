"""From host memory to a device without a wait, for a pass or for what is behind one that runs."""

import torch


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the host on a device, behind what the device was given before.

    A GPU's copy has read memory that is not page-locked when this returns: the host need not wait,
    which would be for all that the device has to do before.
    """
    return tensor.to(device, non_blocking=True)
