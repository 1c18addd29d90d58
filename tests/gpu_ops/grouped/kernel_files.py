"""All kernel files, found by the modules that use them."""

from importlib import import_module
from pkgutil import iter_modules

import gpu_ops.grouped
from gpu_ops.grouped.kernel_file import KernelFile


def kernel_files() -> list[KernelFile]:
    """Return the file of each operator, by name."""
    modules = [
        import_module(f"gpu_ops.grouped.{module.name}")
        for module in iter_modules(gpu_ops.grouped.__path__)
    ]
    return [module.FILE for module in modules if hasattr(module, "FILE")]
