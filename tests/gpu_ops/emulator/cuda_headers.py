"""Where the CUDA headers are: in the wheels that torch and CuPy bring."""

from importlib.util import find_spec
from pathlib import Path


def cuda_include_folders() -> list[Path]:
    """Return the folders to search for CUDA's headers, in order; empty if there are none."""
    spec = find_spec("nvidia")
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    folders = [Path(place) / "cu13" / "include" for place in places]
    return [found for folder in folders for found in (folder, folder / "cccl") if found.is_dir()]
