"""A PEFT checkpoint, part by part: what its tensors say, with the configuration's scales."""

from collections.abc import Mapping

from messages.task_event import TaskKind
from tasks.backbone_families import EMBEDDING_PROJECTION
from tasks.backbone_shape import LINEAR_SITES
from tasks.errors import HeadMissing, KindUnsupported, WrongBackbone
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.checkpoint import Checkpoint
from tasks.importers.imported import Finding, ImportedHead, ImportedPet
from tasks.importers.merge import Linear, merge
from tasks.importers.model_heads import POOLER, build_head, head_modules, linear_of
from tasks.importers.part import Part, combine
from tasks.importers.peft.config import FILE, PeftConfig
from tasks.importers.peft.embeddings import take_embeddings
from tasks.importers.peft.keys import PeftKeys
from tasks.importers.peft.low_rank import (
    low_rank_findings,
    take_adalora,
    take_lora,
    take_vera,
)
from tasks.importers.peft.scales import take_ia3
from tasks.importers.peft.sparse import take_shira
from tasks.importers.peft.target import Target
from tasks.importers.peft.unsupported import check_kind, check_lora_variant
from tasks.importers.peft.vectors import distance_findings, take_beft, take_replaced
from tasks.importers.peft.virtual_tokens import take_virtual_tokens
from tasks.pets.parts import join
from tasks.site_ops import SiteOps


def parse_peft(
    checkpoint: Checkpoint,
    backbone: BackboneTensors,
    kind: TaskKind | None = None,
    *,
    head_file: PeftKeys | None = None,
    reads_head: bool = True,
) -> ImportedPet:
    """Turn a PEFT checkpoint into a PET for the backbone.

    Args:
        checkpoint: As it was read.
        backbone: What it is imported for.
        kind: Of the task; None: what the checkpoint says.
        head_file: Layers of the head that lie elsewhere; they go before the checkpoint's.
        reads_head: False: the head is another one altogether.

    Raises:
        ImportRefused: One of its subclasses, by what cannot be taken over.
        PartsConflict: If its parts change one thing in ways that cannot be joined.
    """
    config = PeftConfig(checkpoint.documents[FILE])
    check_kind(config)
    check_lora_variant(config)
    source, tensors = checkpoint.weights()
    keys = PeftKeys(tensors, source, backbone.family)
    target = Target(backbone.family, backbone.shape)

    lora, lora_own = take_lora(keys, config, target)
    adalora, adalora_own = take_adalora(keys, config, target)
    vera, vera_own = take_vera(keys, target)
    ia3, ia3_own, ia3_findings = take_ia3(keys, target)
    beft, beft_own = take_beft(keys, target)
    sparse, sparse_findings = take_shira(keys, target)
    virtual = take_virtual_tokens(keys, config, target)
    replaced = take_replaced(keys, target, backbone)
    own_ops = _joined(lora_own, adalora_own, vera_own, ia3_own, beft_own)
    at_projection = own_ops.pop(EMBEDDING_PROJECTION, None)
    embeddings = take_embeddings(keys, config, target, backbone, at_projection)
    parts = [
        *lora, *adalora, *vera, *ia3, *beft, *sparse, *virtual, *replaced, *embeddings
    ]  # fmt: skip
    _check_scaled_biases(ia3, replaced)

    is_tagging = (config.text("task_type") if kind is None else kind) in ("TOKEN_CLS", "tagging")
    head = None
    if reads_head:
        head = head_in(
            keys,
            backbone,
            is_tagging=is_tagging,
            kind=kind,
            ops_at=own_ops,
            head_file=head_file,
        )
    else:
        keys.give_back(own_ops)
    if not keys.used:
        raise WrongBackbone(
            f"none of the {len(tensors)} tensors of {source} belongs to a "
            f"{backbone.family.model_type} (the first is {next(iter(tensors), None)}): choose "
            f"another backbone with `--backbone`"
        )
    whole = combine(parts, backbone.shape)
    findings = [
        *checkpoint.findings,
        *low_rank_findings([*lora, *adalora]),
        *ia3_findings,
        *sparse_findings,
        *distance_findings(keys, target, backbone, replaced),
        *_key_findings(keys, config, target, source),
    ]
    if not parts:
        message = "the checkpoint changes nothing in the encoder: the task is its head alone"
        findings.append(Finding("warning", "changes_nothing", message))
    if head is not None and config.text("task_type") is None and kind is None:
        message = (
            f"{FILE} names no task_type: its head is taken as {head.kind}, say otherwise with "
            f"`--kind`"
        )
        findings.append(Finding("warning", "task_type_assumed", message))
    return ImportedPet(
        origin="peft",
        library_version=config.text("peft_version"),
        base_model=config.text("base_model_name_or_path"),
        pet=whole.pet,
        tensors=whole.tensors,
        head=head,
        used_keys=frozenset(keys.used),
        findings=tuple(findings),
    )


def head_in(
    keys: PeftKeys,
    backbone: BackboneTensors,
    *,
    is_tagging: bool,
    kind: TaskKind | None,
    ops_at: Mapping[str, SiteOps],
    head_file: PeftKeys | None = None,
) -> ImportedHead | None:
    """Return the head that is among the tensors, with the ops at its layers merged in.

    Layers that `head_file` has go before those among the tensors.

    Raises:
        HeadMissing: If a layer of it is there in part.
        BadCheckpoint: If its layers do not fit together.
    """
    linears = {}
    for module in dict.fromkeys((POOLER, *head_modules(backbone.family))):
        is_elsewhere = head_file is not None and head_file.has(module, "weight")
        source = head_file if head_file is not None and is_elsewhere else keys
        linear = _linear(source, module, backbone, module in ops_at)
        if linear is not None:
            linears[module] = merge(linear, ops_at.get(module, SiteOps()))
    return build_head(linears, backbone, is_tagging=is_tagging, kind=kind)


def _joined(*found: Mapping[str, SiteOps]) -> dict[str, SiteOps]:
    joined: dict[str, SiteOps] = {}
    for ops_at in found:
        for module, ops in ops_at.items():
            joined[module] = (
                join(joined[module], ops, (0, "embeddings")) if module in joined else ops
            )
    return joined


def _linear(keys: PeftKeys, module: str, backbone: BackboneTensors, has_ops: bool) -> Linear | None:
    """Return a layer of the head before its ops; None where the checkpoint says nothing of it."""
    weight = keys.take(module, "weight", None, None) if keys.has(module, "weight") else None
    bias = keys.take(module, "bias", None) if keys.has(module, "bias") else None
    if weight is None and (has_ops or bias is not None):
        if module != POOLER or not backbone.has_pooler:
            raise HeadMissing(
                f"{module} was trained beside a weight that is not in the checkpoint: add "
                f"{module.partition('.')[0]} to modules_to_save, or merge the adapter and import "
                f"the model as a full fine-tune"
            )
        weight = backbone[f"{POOLER}.weight"]
        bias = backbone[f"{POOLER}.bias"] if bias is None else bias
    return None if weight is None else linear_of(weight, bias, module)


def _check_scaled_biases(scaled: list[Part], replaced: list[Part]) -> None:
    """Refuse a whole new bias where an output is scaled: the scale would miss it."""
    scales = {name.removesuffix(".scale") for part in scaled for name in part.tensors}
    for part in replaced:
        for name in part.tensors:
            if name.removesuffix(".bias") in scales:
                raise KindUnsupported(f"{name} is replaced where an output is scaled (IA3)")


def _key_findings(keys: PeftKeys, config: PeftConfig, target: Target, source: str) -> list[Finding]:
    findings = [
        Finding("warning", "unused_key", f"{source}: {key} has no place in the task: left out")
        for key in keys.unused()
    ]
    findings += [
        Finding("note", "duplicate_key", f"{source}: {key} is a copy of another tensor: left out")
        for key in keys.duplicates
    ]
    named = config.names("target_modules")
    is_whole = not any(map(config.has, ("layers_to_transform", "exclude_modules")))
    if named and is_whole and config.kind not in ("ADALORA", "TRAINABLE_TOKENS"):
        findings += [
            Finding("warning", "missing_key", f"{source}: nothing for {module}, which {FILE} names")
            for module in _expected(named, target)
            if not keys.modules_have(module)
        ]
    return findings


def _expected(named: list[str], target: Target) -> list[str]:
    modules = [
        target.family.module_path(layer, site)
        for layer in range(target.shape.num_layers)
        for site in LINEAR_SITES
    ]
    return [m for m in modules if any(m == name or m.endswith(f".{name}") for name in named)]
