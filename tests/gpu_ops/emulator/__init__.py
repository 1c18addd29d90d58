"""Runs `.cu` files on the CPU, so that kernels are tested where there is no device."""
