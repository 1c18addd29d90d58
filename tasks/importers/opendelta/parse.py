"""A checkpoint of OpenDelta as a task's PET and head.

What it means is read from the source of version 0.3.2, which no longer runs with today's
transformers: no numbers of its own were there to compare with.
"""

from collections.abc import Callable, Mapping

from tasks.backbone_families import family_of_class
from tasks.backbone_shape import BackboneShape
from tasks.errors import KindUnsupported
from tasks.importers.imported import Finding, ImportedHead, ImportedPet
from tasks.importers.ledger import Ledger, without_prefix
from tasks.importers.opendelta.adapters import import_adapters
from tasks.importers.opendelta.methods import import_lora, import_prefix, import_soft_prompt
from tasks.importers.opendelta.replaced import import_replaced
from tasks.importers.opendelta.source import DeltaConfig, Source
from tasks.importers.part import Part, combine
from tasks.importers.sources import BackboneWeights, CheckpointFiles, first_file
from tasks.importers.static_heads import is_static_head, take_static_head
from tasks.importers.validation import validated

CONFIG_FILE = "config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")

_METHODS: Mapping[str, Callable[[Source], list[Part]]] = {
    "adapter": lambda source: import_adapters("adapter", source),
    "low_rank_adapter": lambda source: import_adapters("low_rank_adapter", source),
    "parallel_adapter": lambda source: import_adapters("parallel_adapter", source),
    "lora": import_lora,
    "prefix": import_prefix,
    "soft_prompt": import_soft_prompt,
    # All that it trains stands in the backbone's own places.
    "bitfit": lambda source: [],
}


def parse_opendelta(
    files: CheckpointFiles, shape: BackboneShape, backbone: BackboneWeights
) -> ImportedPet:
    """Turn a checkpoint of OpenDelta 0.3 into a PET.

    Args:
        files: Of the checkpoint's folder.
        shape: Of the backbone that the task shall stand on.
        backbone: Its weights, which trained biases are compared with.

    Raises:
        BadCheckpoint: If the files are not of the library's form, or a tensor has another shape
            than the configuration and the backbone call for.
        KindUnsupported: If it computes what no PET kind does, or what is not certain.
        WrongBackbone: If it has more layers than the backbone.
        KeyMissing: If a tensor is not there that belongs to another; it names all.
        RankOutOfRange, SiteNotFound, TooManyTokens, PartsConflict: If it does not fit the backbone.
    """
    config = validated(DeltaConfig, files.documents.get(CONFIG_FILE), CONFIG_FILE)
    method = _METHODS.get(config.delta_type)
    if method is None:
        raise KindUnsupported(
            f"delta_type {config.delta_type!r} is not imported: known are {', '.join(_METHODS)}"
        )
    names = family_of_class(config.backbone_class)
    if names is None:
        raise KindUnsupported(
            f"backbone_class {config.backbone_class!r} is of no family that tasks can stand on"
        )
    weights = first_file(files.tensors, WEIGHT_FILES)
    ledger = Ledger(weights, without_prefix(f"{names.prefix}."))
    source = Source(config=config, names=names, shape=shape, ledger=ledger)
    own = method(source)
    head = _head(source, backbone)
    parts = own + import_replaced(source, backbone)
    if not parts:
        raise KindUnsupported("no bias differs from the backbone's: nothing was trained")
    ledger.check()
    part = combine(parts, shape)
    return ImportedPet(
        origin="opendelta",
        library_version=config.opendelta_version,
        base_model=config.backbone_checkpoint_name,
        pet=part.pet,
        tensors=part.tensors,
        head=head,
        used_keys=ledger.used_keys(),
        findings=(_unverified(config), *source.findings, *ledger.unused()),
    )


def _head(source: Source, backbone: BackboneWeights) -> ImportedHead | None:
    model_class = source.config.backbone_class
    has_classifier = any(name.startswith("classifier.") for name in source.ledger.names())
    if not has_classifier or not is_static_head(model_class):
        return None
    return take_static_head(model_class, source.ledger, backbone)


def _unverified(config: DeltaConfig) -> Finding:
    named = config.backbone_checkpoint_name or "a backbone without a name"
    message = (
        f"trained on {named}; its backbone_hash is over the printed form of a model of an old "
        f"transformers and cannot be computed again: check that the backbone is the same"
    )
    return Finding("warning", "backbone_not_verified", message)
