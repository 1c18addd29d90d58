"""A PET in PEFT's words: its configuration and its tensors, kind by kind."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_families import EMBEDDING_NORM
from tasks.backbone_shape import LinearSite
from tasks.errors import ExportRefused
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.pets.bitfit import BitFit
from tasks.pets.combined import Combined
from tasks.pets.dora import Dora
from tasks.pets.ia3 import Ia3
from tasks.pets.layer_norm import LayerNormTuning
from tasks.pets.lora import Lora
from tasks.pets.low_rank import ScaledLowRankPet
from tasks.pets.parts import part_prefix
from tasks.pets.pet import Pet
from tasks.pets.prefix import Prefix
from tasks.pets.prompt import Prompt
from tasks.pets.site_names import at, expand_linear, place

Stored = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Exported:
    """What of a PET stands in the folder."""

    config: dict[str, Any]
    tensors: dict[str, NDArray[Any]]
    """By module path and meaning, within the base model."""
    root: str = "base_model.model."


def export_pet(pet: Pet, stored: Stored, backbone: BackboneTensors) -> Exported:
    """Return what stands for a PET in a folder of PEFT.

    Args:
        pet: With its hyperparameters.
        stored: Its tensors as a task's file holds them.
        backbone: What it stands on.

    Raises:
        ExportRefused: If PEFT has no kind that computes the same.
    """
    if isinstance(pet, Combined):
        return _export_combined(pet, stored, backbone)
    for kind, export in _EXPORTS.items():
        if type(pet) is kind:
            return export(pet, stored, backbone)
    raise ExportRefused(
        f"PEFT has no {pet.kind} that this one would be: export it as `--format petstream`"
    )


def _export_combined(pet: Combined, stored: Stored, backbone: BackboneTensors) -> Exported:
    """LoRA or DoRA with biases of its own, which PEFT calls `bias`, is the one that PEFT has."""
    first, second, *others = pet.parts
    if others or type(first) not in (Lora, Dora) or type(second) is not BitFit:
        kinds = ", ".join(part.kind for part in pet.parts)
        raise ExportRefused(
            f"PEFT has no PET that is {kinds} at once: export it as `--format petstream`"
        )
    exported = _low_rank(first, _of_part(0, stored), backbone)
    biases = _of_part(1, stored)
    names = second.tensor_specs(backbone.shape)
    for name in names:
        module = _module_of(name.removesuffix(".bias"), backbone)
        whole = _whole(biases[name], backbone[f"{module}.bias"], name)
        is_wrapped = f"{module}.lora_A.weight" in exported.tensors
        exported.tensors[f"{module}.base_layer.bias" if is_wrapped else f"{module}.bias"] = whole
    exported.config["bias"] = "all"
    return exported


def _low_rank(pet: Any, stored: Stored, backbone: BackboneTensors) -> Exported:  # noqa: ANN401 - see _EXPORTS
    assert isinstance(pet, ScaledLowRankPet)
    if isinstance(pet, Lora) and pet.gated:
        raise ExportRefused("PEFT's LoRA has no gate: export it as `--format petstream`")
    tensors, ranks, alphas = {}, {}, {}
    for layer, site in pet.places(backbone.shape):
        own, module = place(layer, site), backbone.family.module_path(layer, site)
        for name, meaning in (
            ("lora_a", "lora_A.weight"),
            ("lora_b", "lora_B.weight"),
            ("lora_bias", "lora_B.bias"),
            ("magnitude", "lora_magnitude_vector"),
        ):
            if f"{own}.{name}" in stored:
                tensors[f"{module}.{meaning}"] = stored[f"{own}.{name}"]
        rank = pet.rank_at(layer, site)
        alpha = at(pet.alpha_pattern, layer, site, pet.alpha)
        if rank != pet.rank:
            ranks[module] = rank
        if alpha != pet.alpha:
            alphas[module] = alpha
    config = {
        "peft_type": "LORA",
        "r": pet.rank,
        "lora_alpha": pet.alpha,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": _modules(pet.places(backbone.shape), backbone),
        "use_rslora": bool(pet.rank_stabilized),
        "use_dora": isinstance(pet, Dora),
        "lora_bias": bool(pet.has_bias),
        "bias": "none",
    }
    return Exported(config, tensors)


def _ia3(pet: Any, stored: Stored, backbone: BackboneTensors) -> Exported:  # noqa: ANN401
    assert isinstance(pet, Ia3)
    tensors: dict[str, NDArray[Any]] = {}
    inputs = []
    outputs = ("key", "value") if pet.output_sites is None else pet.output_sites
    into = ("ffn_output",) if pet.input_sites is None else pet.input_sites
    for is_input, names in ((False, outputs), (True, into)):
        for layer, site in expand_linear(names, backbone.shape):
            module = backbone.family.module_path(layer, site)
            scale = stored[f"{place(layer, site)}.scale"]
            tensors[f"{module}.ia3_l"] = scale[None, :] if is_input else scale[:, None]
            inputs += [module] if is_input else []
    modules = [name.removesuffix(".ia3_l") for name in tensors]
    config = {"peft_type": "IA3", "target_modules": modules, "feedforward_modules": inputs}
    return Exported(config, tensors)


def _norms(pet: Any, stored: Stored, backbone: BackboneTensors) -> Exported:  # noqa: ANN401
    tensors: dict[str, NDArray[Any]] = {}
    for name in pet.tensor_specs(backbone.shape):
        where, _, tensor = name.rpartition(".")
        module = _module_of(where, backbone)
        whole = _whole(stored[name], backbone[f"{module}.{tensor}"], name)
        tensors[f"{module}.ln_tuning_layers.{tensor}"] = whole
    modules = list(dict.fromkeys(name.partition(".ln_tuning")[0] for name in tensors))
    return Exported({"peft_type": "LN_TUNING", "target_modules": modules}, tensors)


def _prefix(pet: Any, stored: Stored, backbone: BackboneTensors) -> Exported:  # noqa: ANN401
    if pet.gated or pet.leave_out or not pet.moves_positions:
        raise ExportRefused(
            "PEFT's prefix stands in every layer, without a gate, and moves positions: export it "
            "as `--format petstream`"
        )
    flat = [
        stored[f"layers.{layer}.attention.prefix_{name}"]
        for layer in range(backbone.shape.num_layers)
        for name in ("keys", "values")
    ]
    vectors = np.concatenate(flat, axis=1)
    return _virtual("PREFIX_TUNING", vectors, backbone.shape.hidden_size, backbone)


def _prompt(pet: Any, stored: Stored, backbone: BackboneTensors) -> Exported:  # noqa: ANN401
    if pet != Prompt(num_tokens=pet.num_tokens, place="first", pools_own=False):
        raise ExportRefused(
            "PEFT's prompt stands before the whole row and is pooled: export it as `--format "
            "petstream`"
        )
    vectors = stored["embeddings.prompt"]
    return _virtual("PROMPT_TUNING", vectors, backbone.shape.embedding_size, backbone)


def _virtual(
    kind: str, vectors: NDArray[Any], token_dim: int, backbone: BackboneTensors
) -> Exported:
    config = {
        "peft_type": kind,
        "num_virtual_tokens": len(vectors),
        "token_dim": token_dim,
        "num_layers": backbone.shape.num_layers,
        "num_attention_heads": backbone.shape.num_heads,
        "num_transformer_submodules": 1,
    }
    return Exported(config, {"prompt_embeddings": vectors}, root="base_model.")


_EXPORTS: Mapping[type[Pet], Callable[[Any, Stored, BackboneTensors], Exported]] = {
    Lora: _low_rank,
    Dora: _low_rank,
    Ia3: _ia3,
    LayerNormTuning: _norms,
    Prefix: _prefix,
    Prompt: _prompt,
}


def _whole(change: NDArray[Any], own: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Return the float32 values whose difference to the backbone's is the change, exactly.

    Raises:
        ExportRefused: If there are none: the change is finer than the values that hold it.
    """
    stored = change.astype(np.float32)
    whole = np.asarray(own + stored, np.float32)
    for candidate in (whole, np.nextafter(whole, np.inf), np.nextafter(whole, -np.inf)):
        is_off = (whole - own).astype(change.dtype) != change
        is_better = is_off & ((candidate - own).astype(change.dtype) == change)
        whole = np.where(is_better, candidate, whole)
    if ((whole - own).astype(change.dtype) != change).any():
        raise ExportRefused(
            f"{name} has changes finer than float32 has beside the backbone's own values: export "
            f"it as `--format petstream`"
        )
    return whole


def _module_of(where: str, backbone: BackboneTensors) -> str:
    if where == "embeddings":
        return EMBEDDING_NORM
    _, layer, site = where.split(".")
    found: Any = site
    return backbone.family.module_path(int(layer), found)


def _modules(places: Iterable[tuple[int, LinearSite]], backbone: BackboneTensors) -> list[str]:
    return [backbone.family.module_path(layer, site) for layer, site in places]


def _of_part(number: int, stored: Stored) -> dict[str, NDArray[Any]]:
    prefix = part_prefix(number)
    return {
        name.removeprefix(prefix): values
        for name, values in stored.items()
        if name.startswith(prefix)
    }
