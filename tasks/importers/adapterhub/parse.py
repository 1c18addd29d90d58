"""A checkpoint of the adapters library as a task's PET and head."""

from tasks.backbone_shape import BackboneShape
from tasks.errors import KindUnsupported, WrongBackbone
from tasks.importers.adapterhub.bottleneck import import_bottleneck
from tasks.importers.adapterhub.config import (
    BottleneckConfig,
    LowRankConfig,
    MethodConfig,
    PrefixConfig,
    read_document,
    read_methods,
)
from tasks.importers.adapterhub.heads import import_head
from tasks.importers.adapterhub.low_rank import import_low_rank
from tasks.importers.adapterhub.places import places_of
from tasks.importers.adapterhub.prefix import import_prefix
from tasks.importers.adapterhub.prompt import import_prompt
from tasks.importers.adapterhub.source import Source
from tasks.importers.imported import Finding, ImportedHead, ImportedPet
from tasks.importers.ledger import Ledger
from tasks.importers.part import Part, combine
from tasks.importers.sources import BackboneWeights, CheckpointFiles, first_file

CONFIG_FILE, HEAD_CONFIG_FILE = "adapter_config.json", "head_config.json"
WEIGHT_FILES = ("adapter.safetensors", "pytorch_adapter.bin")
HEAD_WEIGHT_FILES = ("model_head.safetensors", "pytorch_model_head.bin")

_REFUSED_FILES = {
    "adapter_fusion_config.json": "AdapterFusion attends over several adapters at once",
    "adapter_setup.json": "it composes several adapters: import each of them as a task of its own",
    "adapter_interface.json": (
        "it was trained through the library's plug-in interface, whose maths differs from that of "
        "its own classes"
    ),
}


def parse_adapterhub(
    files: CheckpointFiles, shape: BackboneShape, backbone: BackboneWeights
) -> ImportedPet:
    """Turn a checkpoint of the adapters library, of version 1 or later, into a PET.

    What comes out computes what the library computes for rows without padding.

    Args:
        files: Of the checkpoint's folder.
        shape: Of the backbone that the task shall stand on.
        backbone: Its weights, which DoRA's are folded with.

    Raises:
        BadCheckpoint: If the files contradict each other or are not of the library's form, or a
            tensor has another shape than the configuration and the backbone call for.
        KindUnsupported: If it computes what no PET kind or head does; the message says what.
        WrongBackbone: If it was trained on a backbone of another size.
        KeyMissing: If a tensor is not there that the configuration calls for; it names all.
        RankOutOfRange, SiteNotFound, TooManyTokens, PartsConflict: If it does not fit the backbone.
    """
    for name, reason in _REFUSED_FILES.items():
        if name in files.documents:
            raise KindUnsupported(f"{name} is not imported: {reason}")
    document = read_document(files.documents.get(CONFIG_FILE))
    if document.hidden_size not in (None, shape.hidden_size):
        raise WrongBackbone(
            f"the checkpoint is for a hidden size of {document.hidden_size}, the backbone has "
            f"{shape.hidden_size}: import it for the backbone that it was trained on"
        )
    places = places_of(document.model_type)
    source = Source(
        name=document.name,
        places=places,
        shape=shape,
        ledger=Ledger(first_file(files.tensors, WEIGHT_FILES), places.rename),
        backbone=backbone,
        is_early_task=document.type == "text_task",
    )
    methods, findings = read_methods(document)
    parts = [part for method in methods for part in _import(method, source)]
    source.ledger.check()
    part = combine(parts, shape)
    head, head_keys, head_findings = _head(files, backbone)
    return ImportedPet(
        origin="adapters",
        library_version=document.version,
        base_model=document.model_name,
        pet=part.pet,
        tensors=part.tensors,
        head=head,
        used_keys=source.ledger.used_keys() | head_keys,
        findings=(*findings, *source.findings, *source.ledger.unused(), *head_findings),
    )


def _import(method: MethodConfig, source: Source) -> list[Part]:
    if isinstance(method, BottleneckConfig):
        return import_bottleneck(method, source)
    if isinstance(method, LowRankConfig):
        return import_low_rank(method, source)
    if isinstance(method, PrefixConfig):
        return import_prefix(method, source)
    return import_prompt(method, source)


def _head(
    files: CheckpointFiles, backbone: BackboneWeights
) -> tuple[ImportedHead | None, frozenset[str], list[Finding]]:
    if HEAD_CONFIG_FILE not in files.documents:
        return None, frozenset(), []
    ledger = Ledger(first_file(files.tensors, HEAD_WEIGHT_FILES))
    findings: list[Finding] = []
    head = import_head(files.documents[HEAD_CONFIG_FILE], ledger, backbone, findings)
    ledger.check()
    return head, ledger.used_keys(), findings + ledger.unused()
