"""Tasks with random PETs whose every tensor moves the logits, on a real backbone's shape.

`benchmarks/` uses them too: an op's time does not depend on its values.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from messages.task_event import TaskKind
from petstream.benchmarks.dense_task import DenseTask, without_pet
from tasks.backbone_shape import BackboneShape
from tasks.description import (
    HeadLayout,
    Pooling,
)
from tasks.pets.adalora import AdaLora
from tasks.pets.adapter import Adapter
from tasks.pets.bitfit import BitFit
from tasks.pets.bottleneck import BottleneckPet
from tasks.pets.combined import Combined
from tasks.pets.compacter import Compacter
from tasks.pets.dense_delta import DenseDelta
from tasks.pets.diff import Diff
from tasks.pets.dora import Dora
from tasks.pets.embedding_delta import EmbeddingDelta
from tasks.pets.ia3 import Ia3
from tasks.pets.kinds import AnyPet
from tasks.pets.layer_norm import LayerNormTuning
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask
from tasks.pets.pet import Pet
from tasks.pets.prefix import Prefix
from tasks.pets.prompt import Prompt
from tasks.pets.random_weights import random_floats, random_weights
from tasks.site_ops import HiddenLayer
from workers.backbone import SITES_OF, Backbone
from workers.engine import Engine
from workers.loaded_task import LoadedTask

PAPERS_PETS: dict[str, AnyPet] = {
    "lora": Lora(rank=8, alpha=16.0),
    "lora-query-value": Lora(rank=4, alpha=8.0, sites=("query", "value")),
    "ia3": Ia3(),
    "bitfit": BitFit(),
    "houlsby": Adapter(placement="houlsby", bottleneck=64, activation="gelu"),
    "pfeiffer": Adapter(placement="pfeiffer", bottleneck=32, activation="relu"),
    "mask": Mask(),
    "diff": Diff(),
}
"""The kinds that `petstream train` makes, with sizes as in the papers."""

OTHER_PETS: dict[str, AnyPet] = {
    "lora-patterns": Lora(
        rank=4,
        alpha=8.0,
        sites=("query", "key", "1.ffn_input"),
        rank_pattern={"key": 3, "0.query": 6},
        alpha_pattern={"1.ffn_input": 20.0},
        rank_stabilized=True,
        has_bias=True,
    ),
    "lora-gated": Lora(rank=4, alpha=8.0, sites=("query", "ffn_output"), gated=True),
    "dora": Dora(rank=4, alpha=8.0, sites=("query", "value", "ffn_input", "ffn_output")),
    "adalora": AdaLora(rank=6, alpha=24.0, sites=("query", "key"), rank_pattern={"0.key": 2}),
    "ia3-everywhere": Ia3(
        output_sites=("query", "value", "ffn_input", "1.ffn_output"),
        input_sites=("attention_output", "0.ffn_output"),
    ),
    "ia3-ffn-input": Ia3(output_sites=(), input_sites=("ffn_input",)),
    "bitfit-some": BitFit(sites=("query", "1.ffn_norm", "embeddings")),
    "layer-norm": LayerNormTuning(sites=("attention_norm", "0.ffn_norm", "embeddings")),
    "adapter-pfeiffer-hub": Adapter(
        placement="pfeiffer",
        bottleneck=24,
        activation="relu",
        reads="normed",
        own_norms=False,
        bottlenecks={"0.ffn_output": 16},
    ),
    "adapter-parallel": Adapter(
        placement="houlsby",
        bottleneck=24,
        activation="silu",
        reads="input",
        own_norms=False,
        leave_out=(0,),
    ),
    "adapter-norms": Adapter(
        placement="attention",
        bottleneck=24,
        activation="tanh",
        adds_to="normed",
        norm_before=True,
        norm_after="change",
        gated=True,
    ),
    "adapter-after-all": Adapter(
        placement="houlsby",
        bottleneck=24,
        activation="gelu_new",
        reads="normed",
        adds_to="normed",
        norm_after="sum",
        skips_norm=True,
        own_norms=True,
    ),
    "adapter-summed": Adapter(
        placement="pfeiffer",
        bottleneck=24,
        activation="relu",
        reads="normed",
        adds_to="summed",
        own_norms=False,
    ),
    "adapter-sigmoid": Adapter(placement="houlsby", bottleneck=8, activation="sigmoid"),
    "adapter-leaky": Adapter(placement="houlsby", bottleneck=8, activation="leaky_relu"),
    "compacter": Compacter(
        placement="houlsby", bottleneck=32, activation="gelu", phm_dim=4, phm_rank=1
    ),
    "compacter-whole": Compacter(
        placement="pfeiffer", bottleneck=32, activation="relu", phm_dim=2, shared_rule=False
    ),
    "prefix": Prefix(num_tokens=7, leave_out=(1,)),
    "prefix-moved": Prefix(num_tokens=5, moves_positions=True),
    "prefix-gated": Prefix(num_tokens=3, gated=True),
    "prompt": Prompt(num_tokens=6, pools_own=False),
    "prompt-after-cls": Prompt(num_tokens=4, place="after_cls"),
    "prompt-hidden": Prompt(num_tokens=5, enters="hidden"),
    "prompt-last": Prompt(num_tokens=5, enters="hidden", place="last"),
    "mam": Combined(
        parts=(
            Prefix(num_tokens=8),
            Adapter(
                placement="pfeiffer",
                bottleneck=48,
                activation="relu",
                reads="input",
                own_norms=False,
            ),
        )
    ),
    "unipelt": Combined(
        parts=(
            Lora(rank=8, alpha=8.0, sites=("query", "value"), gated=True),
            Prefix(num_tokens=6, gated=True),
            Adapter(
                placement="pfeiffer", bottleneck=24, activation="relu", gated=True, reads="normed"
            ),
        )
    ),
    "lora-with-biases": Combined(
        parts=(Lora(rank=4, alpha=8.0), BitFit(), Lora(rank=2, alpha=2.0, sites=("query",)))
    ),
    "dora-with-biases": Combined(
        parts=(Dora(rank=4, alpha=8.0, sites=("query",)), BitFit(sites=("query", "key")))
    ),
    "full-dense": Combined(
        parts=(DenseDelta(), BitFit(), EmbeddingDelta(num_positions=512, num_types=2))
    ),
    "full-sparse": Combined(parts=(Diff(), EmbeddingDelta())),
}
"""Every other kind, and each option of each kind."""

PETS = PAPERS_PETS | OTHER_PETS


def random_task(
    variant: str,
    shape: BackboneShape,
    *,
    seed: int = 0,
    kind: TaskKind = "single_label",
    num_labels: int = 7,
    pooling: Pooling = "mean",
    takes_pair: bool = False,
) -> DenseTask:
    """Make a task of a variant of `PETS`."""
    rng = np.random.default_rng(seed)
    pet = PETS[variant]
    return DenseTask(
        name=f"{variant}-{kind}-{seed}".replace("_", "-"),
        kind=kind,
        pet=pet,
        dense=random_weights(pet, shape, rng),
        head_weight=random_floats(rng, 0.3, num_labels, shape.hidden_size),
        head_bias=random_floats(rng, 0.3, num_labels),
        pooling=pooling,
        takes_pair=takes_pair,
    )


EMBEDDING_HEADS: dict[str, HeadLayout | None] = {
    "identity": HeadLayout(output="none"),
    "projection": None,
    "activation": HeadLayout(hidden="own", features=5, activation="tanh", output="none"),
    "two-layers": HeadLayout(hidden="own", features=5, activation="gelu"),
}


def random_embedding(
    head: str, shape: BackboneShape, *, variant: str = "lora", pooling: Pooling = "mean"
) -> DenseTask:
    """Make an embedding with one of `EMBEDDING_HEADS`."""
    layout = EMBEDDING_HEADS[head]
    rng = np.random.default_rng(len(head))
    hidden = None
    features = shape.hidden_size
    if layout is not None and layout.activation is not None:
        features = layout.features or features
        hidden = HiddenLayer(
            random_floats(rng, 0.3, features, shape.hidden_size),
            random_floats(rng, 0.3, features),
            layout.activation,
        )
    num_outputs = 11 if layout is None or layout.output is None else features
    return DenseTask(
        name=f"embedding-{head}-{pooling}",
        kind="embedding",
        pet=PETS[variant],
        dense=random_weights(PETS[variant], shape, rng),
        head_weight=random_floats(rng, 0.3, num_outputs, features),
        head_bias=random_floats(rng, 0.3, num_outputs),
        pooling=pooling,
        layout=layout,
        hidden=hidden,
    )


def can_be_empty(pet: Pet) -> bool:
    """Whether some values change nothing: virtual tokens are seen, and an own LayerNorm acts."""
    if isinstance(pet, Combined):
        return all(can_be_empty(part) for part in pet.parts)
    if isinstance(pet, BottleneckPet):
        is_on_output = pet.adds_to in (None, "output")
        return is_on_output and not pet.norm_after and not pet.skips_norm
    return not isinstance(pet, Prefix | Prompt)


def empty_task(variant: str, backbone: Backbone) -> DenseTask:
    """Return the task with a PET that changes nothing."""
    task = random_task(variant, backbone.shape)
    return replace(task, dense={n: _neutral(n, v, backbone) for n, v in task.dense.items()})


def _neutral(name: str, values: NDArray[Any], backbone: Backbone) -> NDArray[Any]:
    """Return the values of a tensor with which its op does nothing."""
    if name.endswith(".magnitude"):
        *_, layer, site, _ = name.split(".")
        weight = site_weight(backbone, int(layer), site)
        norms: NDArray[np.float32] = np.linalg.norm(weight, axis=1).astype(np.float32)
        return norms
    return np.ones_like(values) if name.endswith(".scale") else np.zeros_like(values)


def site_weight(backbone: Backbone, layer: int, site: str) -> NDArray[np.float32]:
    """Return the shared weight [out, in] of a linear site."""
    for product, sites in SITES_OF.items():
        if site in sites:
            weight = backbone.products[layer, product].weight
            return torch.chunk(weight, len(sites))[sites.index(site)].numpy()
    raise KeyError(site)


def identity_task(engine: Engine, *, takes_pair: bool = False) -> LoadedTask:
    """Return a tagging task without a PET whose logits are the backbone's hidden states."""
    shape = engine.backbone.shape
    task = replace(
        random_task("ia3", shape, kind="tagging", pooling="none", takes_pair=takes_pair),
        head_weight=np.eye(shape.hidden_size, dtype=np.float32),
        head_bias=np.zeros(shape.hidden_size, dtype=np.float32),
    )
    return without_pet(task.load(engine))
