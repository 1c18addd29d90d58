"""A backbone's folder: its files, and the tensors that the weights file must have.

No torch here: the command line and the store check folders too.
"""

from collections.abc import Container, Iterator
from pathlib import Path

from tasks.backbone_families import (
    EMBEDDING_NORM,
    EMBEDDING_PROJECTION,
    FAMILIES,
    POSITIONS,
    RELATIVE_ATTENTION,
    TOKEN_TYPES,
    WORDS,
)
from tasks.backbone_shape import LINEAR_SITES, NORM_SITES
from workers.backbone_config import CONFIG_FILE, NUM_RELATIVE_BUCKETS, BackboneConfig
from workers.errors import BackboneCorruptError, BackboneMissingError
from workers.safetensors_file import TensorInfo, read_header

WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
FOLDER_FILES = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE)
"""A backbone's folder: what a Hugging Face folder of the same model has, and no more."""

# What the oldest checkpoints call the two vectors of a LayerNorm.
_OLD_NORM_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


def expected_tensors(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    """Return the name within the base model and the shape of every tensor the engine reads."""
    tensors = dict(_embedding_tensors(config))
    shape = config.shape
    family = FAMILIES[config.family]
    for layer in range(shape.num_layers):
        for site in LINEAR_SITES:
            num_out, num_in = shape.linear_shape(site)
            tensors |= _linear(family.module_path(layer, site), num_out, num_in)
        for norm_site in NORM_SITES:
            tensors |= _norm(family.module_path(layer, norm_site), shape.hidden_size)
    return tensors


def checkpoint_name(name: str, family: str, stored: Container[str]) -> str:
    """Return what a checkpoint calls a tensor of the base model.

    A checkpoint of a model with a head has the family's prefix before the name, and one that was
    converted from the first BERT has other names for the vectors of a LayerNorm.

    Args:
        name: Within the base model.
        family: Whose.
        stored: The names in the checkpoint.
    """
    prefix = f"{FAMILIES[family].prefix}."
    if f"{prefix}{WORDS}.weight" in stored:
        name = prefix + name
    for ending, old_ending in _OLD_NORM_NAMES.items():
        old_name = name.removesuffix(ending) + old_ending
        if name.endswith(ending) and old_name in stored:
            return old_name
    return name


def check_weights_header(folder: Path, config: BackboneConfig) -> None:
    """Check that the weights file has every tensor that `config` asks for.

    Raises:
        BackboneMissingError: If there is no weights file.
        BackboneCorruptError: If it is not safetensors, or a tensor is missing, of another shape
            or not float32 or a smaller float.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise BackboneMissingError(
            f"{folder} has no {WEIGHTS_FILE} (pickled weights, *.bin, are never loaded)"
        )
    header = read_header(path)
    for name, expected in expected_tensors(config).items():
        stored_name = checkpoint_name(name, config.family, header)
        found: TensorInfo | None = header.get(stored_name)
        if found is None or found.shape != expected or found.dtype not in ("F32", "F16", "BF16"):
            raise BackboneCorruptError(
                f"{path}: {stored_name} should be a float tensor of shape {expected}, "
                f"found {'nothing' if found is None else f'{found.dtype} {found.shape}'}"
            )


def _embedding_tensors(config: BackboneConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    width = config.embedding_size
    shape = config.shape
    yield f"{WORDS}.weight", (shape.vocab_size, width)
    yield f"{POSITIONS}.weight", (config.first_position + shape.max_positions, width)
    if config.num_token_types:
        yield f"{TOKEN_TYPES}.weight", (config.num_token_types, width)
    yield from _norm(EMBEDDING_NORM, width).items()
    if width != shape.hidden_size:
        yield from _linear(EMBEDDING_PROJECTION, shape.hidden_size, width).items()
    if config.has_relative_attention:
        yield f"{RELATIVE_ATTENTION}.weight", (NUM_RELATIVE_BUCKETS, shape.num_heads)


def _linear(module: str, num_out: int, num_in: int) -> dict[str, tuple[int, ...]]:
    return {f"{module}.weight": (num_out, num_in), f"{module}.bias": (num_out,)}


def _norm(module: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{module}.weight": (width,), f"{module}.bias": (width,)}
