"""PEFT: the rows of all tasks in one batch, each with its LoRA by `adapter_names`."""

from collections.abc import Iterator
from typing import Any

import peft
import torch

from petstream.benchmarks.engine.cases import LORA_ALPHA, LORA_RANK
from petstream.benchmarks.engine.row_batches import batches, in_row_order, padded
from petstream.benchmarks.engine.system import Logits, Request, System
from petstream.benchmarks.engine.systems.parameters import fill
from petstream.benchmarks.engine.systems.pooled_heads import PooledHeads
from petstream.benchmarks.engine.systems.task_model import load_encoder
from petstream.benchmarks.engine.weight_files import (
    BERT_MODULES,
    PetFile,
    plain_folder,
    read_pets,
    read_rows,
)
from tasks.sites import LINEAR_SITES

_TARGETS = {
    "lora-query-value": ("query", "value"),
    "lora-all-linear": LINEAR_SITES,
}


def build(request: Request) -> System:
    """Load the backbone and add every task's LoRA under a name of its own."""
    dtype = getattr(torch, request.dtype)
    rows = read_rows(request.rows)
    pets = read_pets(request.weights)
    (kind,) = request.kinds
    sites = "|".join(BERT_MODULES[site].replace(".", r"\.") for site in _TARGETS[kind])
    config = peft.LoraConfig(
        r=LORA_RANK,
        lora_alpha=LORA_ALPHA,
        target_modules=rf"encoder\.layer\.\d+\.({sites})",
    )
    names = [f"task-{task}" for task in range(max(rows.tasks) + 1)]
    model = peft.get_peft_model(load_encoder(plain_folder(request.weights)), config, names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    factors = (pair for t, name in enumerate(names) for pair in _factors(pets[t % len(pets)], name))
    num_bytes = fill(model, factors, dtype)
    heads = PooledHeads(pets, dtype, request.pooling)
    work = batches(rows, range(len(rows.tasks)), request.how)

    @torch.inference_mode()
    def run() -> Logits:
        torch.set_num_threads(request.threads)
        parts = []
        for numbers in work:
            ids, mask = (torch.from_numpy(values) for values in padded(rows, numbers))
            tasks = [rows.tasks[number] for number in numbers]
            output: Any = model(
                input_ids=ids, attention_mask=mask, adapter_names=[names[task] for task in tasks]
            )
            parts.append((numbers, heads.logits(output.last_hidden_state, mask, tasks)))
        return in_row_order(parts, len(rows.tasks))

    return System(
        run, f"peft {peft.__version__}, torch {torch.__version__}", num_bytes / len(names)
    )


def _factors(pet: PetFile, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a PET's factors by the names of the parameters that they are."""
    for key, values in pet.dense.items():
        _, layer, site, factor = key.split(".")
        place = f"base_model.model.encoder.layer.{layer}.{BERT_MODULES[site]}"
        yield f"{place}.{factor[:-1]}{factor[-1].upper()}.{name}.weight", torch.from_numpy(values)
