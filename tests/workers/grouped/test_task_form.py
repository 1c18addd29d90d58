"""Which kinds kernels run, and which fall back to torch and where: as a table, so that it is seen.

A looped place costs a dozen launches for each task and layer.
"""

from collections.abc import Mapping

import pytest
import torch

from tests.workers.pets import OTHER_PETS, PAPERS_PETS, PETS, random_task
from workers.backbone import Product
from workers.engine import Engine
from workers.grouped.device_backbone import DeviceBackbone
from workers.grouped.task_form import TaskForm, task_form
from workers.grouped.task_pools import TaskPools
from workers.task_ops import build_task_ops

CPU = torch.device("cpu")
EVERY_LAYER = (0, 1, 2)
"""Of the small backbone."""

LOOPED: Mapping[str, Mapping[Product, tuple[int, ...]]] = {
    "lora-patterns": {},
    "lora-gated": {"qkv": EVERY_LAYER, "ffn_output": EVERY_LAYER},
    "dora": {"qkv": EVERY_LAYER, "ffn_input": EVERY_LAYER, "ffn_output": EVERY_LAYER},
    "adalora": {},
    "ia3-everywhere": {
        "attention_output": EVERY_LAYER,
        "ffn_input": EVERY_LAYER,
        "ffn_output": (1,),
    },
    "ia3-ffn-input": {"ffn_input": EVERY_LAYER},
    "bitfit-some": {},
    "layer-norm": {},
    "adapter-pfeiffer-hub": {"ffn_output": EVERY_LAYER},
    "adapter-parallel": {"attention_output": (1, 2), "ffn_output": (1, 2)},
    "adapter-norms": {"attention_output": EVERY_LAYER},
    "adapter-after-all": {"attention_output": EVERY_LAYER, "ffn_output": EVERY_LAYER},
    "adapter-summed": {"ffn_output": EVERY_LAYER},
    "adapter-sigmoid": {"attention_output": EVERY_LAYER, "ffn_output": EVERY_LAYER},
    "adapter-leaky": {"attention_output": EVERY_LAYER, "ffn_output": EVERY_LAYER},
    "compacter": {},
    "compacter-whole": {},
    "prefix": {},
    "prefix-moved": {},
    "prefix-gated": {},
    "prompt": {},
    "prompt-after-cls": {},
    "prompt-hidden": {},
    "prompt-last": {},
    "mam": {"ffn_output": EVERY_LAYER},
    "unipelt": {"qkv": EVERY_LAYER, "ffn_output": EVERY_LAYER},
    "lora-with-biases": {},
    "dora-with-biases": {"qkv": EVERY_LAYER},
    "full-dense": {
        "qkv": EVERY_LAYER,
        "attention_output": EVERY_LAYER,
        "ffn_input": EVERY_LAYER,
        "ffn_output": EVERY_LAYER,
    },
    "full-sparse": {},
}
"""Layers of each product where torch runs a task's ops one by one."""

PRODUCTS_OF_PAPERS: Mapping[str, Mapping[str, dict[Product, int]]] = {
    "lora": {
        "low_ranks": {"qkv": 8, "attention_output": 8, "ffn_input": 8, "ffn_output": 8},
    },
    "lora-query-value": {"low_ranks": {"qkv": 8}},
    "ia3": {},
    "bitfit": {},
    "houlsby": {"adapters": {"attention_output": 64, "ffn_output": 64}},
    "pfeiffer": {"adapters": {"ffn_output": 32}},
    "mask": {},
    "diff": {
        "sparse": {"qkv": 4096, "attention_output": 1024, "ffn_input": 4096, "ffn_output": 4096}
    },
}
"""Sizes of the pools that the papers' kinds have their weights in."""
VECTORS = ("bitfit", "houlsby", "pfeiffer", "diff")
"""Those that have biases or LayerNorms of their own."""


def form_of(variant: str, engine: Engine) -> TaskForm:
    """Return the form of a random task."""
    backbone = engine.backbone
    weights = random_task(variant, backbone.shape).weights(backbone.shape)
    return task_form(build_task_ops(weights, backbone), backbone)


def looped(form: TaskForm) -> dict[Product, tuple[int, ...]]:
    """Return the layers of each product that has looped places."""
    products = {product for _, product in form.looped}
    return {
        product: tuple(sorted(layer for layer, at in form.looped if at == product))
        for product in products
    }


@pytest.mark.parametrize("variant", PAPERS_PETS)
def test_kernels_run_all_of_the_papers_kinds(small_engine: Engine, variant: str) -> None:
    """None of them has a looped place."""
    form = form_of(variant, small_engine)

    assert not form.looped
    sizes = PRODUCTS_OF_PAPERS[variant]
    assert form.low_ranks == sizes.get("low_ranks", {})
    assert form.adapters == sizes.get("adapters", {})
    assert form.sparse == sizes.get("sparse", {})
    assert form.has_scales == (variant == "ia3")
    assert form.has_vectors == (variant in VECTORS)
    is_mask = variant == "mask"
    masked = {"qkv", "attention_output", "ffn_input", "ffn_output"} if is_mask else set()
    assert form.masked == masked
    assert not form.has_prefixes


@pytest.mark.parametrize("variant", OTHER_PETS)
def test_where_torch_runs_the_other_kinds(small_engine: Engine, variant: str) -> None:
    """As in the table, which has every one of them."""
    assert looped(form_of(variant, small_engine)) == LOOPED[variant]


@pytest.mark.parametrize("variant", PETS)
def test_rows_of_looped_places_get_no_shared_bias(small_engine: Engine, variant: str) -> None:
    """Torch adds it there, so the task has vectors of its own."""
    form = form_of(variant, small_engine)

    assert form.has_vectors or not form.looped


def test_tasks_of_near_sizes_share_a_pool(small_engine: Engine) -> None:
    """Ranks 8, 4, 6 of a pattern and 4 + 2 of two LoRAs."""
    ranks = [
        form_of(variant, small_engine).low_ranks["qkv"]
        for variant in ("lora", "lora-query-value", "lora-patterns", "lora-with-biases")
    ]

    assert set(ranks) == {8}


def test_a_device_without_memory_for_a_sparse_kernel_loops_its_places(
    small_engine: Engine,
) -> None:
    """Those of that product alone."""
    backbone = small_engine.backbone
    weights = random_task("diff", backbone.shape).weights(backbone.shape)

    form = task_form(build_task_ops(weights, backbone), backbone, ["qkv", "ffn_input"])

    layers = tuple(range(backbone.shape.num_layers))
    assert looped(form) == {"attention_output": layers, "ffn_output": layers}
    assert set(form.sparse) == {"qkv", "ffn_input"}


def test_tasks_that_need_the_same_share_their_form(small_engine: Engine) -> None:
    """A batch is planned by forms; places that torch runs are a task's own."""
    backbone = small_engine.backbone
    pools = TaskPools(backbone, DeviceBackbone.of(backbone, CPU, torch.float32), limit_bytes=0)

    variants = ("lora", "lora-query-value", "bitfit", "ia3", "mask", "dora", "prefix")
    tasks = {
        variant: [random_task(variant, backbone.shape, seed=n).load(small_engine) for n in range(2)]
        for variant in variants
    }

    forms = {variant: [pools.form_of(task) for task in of] for variant, of in tasks.items()}

    assert {v for v, (one, other) in forms.items() if one is other} == {*variants} - {"dora"}
    assert len({form for of in forms.values() for form in of}) == len(variants) + 1
    assert {v for v, (one, _) in forms.items() if one.has_prefixes} == {"prefix"}
