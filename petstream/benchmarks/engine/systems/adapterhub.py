"""AdapterHub: the rows of all tasks in one padded batch, divided among adapters by `BatchSplit`.

Runs in the environment of `make oracle-env`.
"""

from collections import Counter
from collections.abc import Iterator

import adapters  # type: ignore[import-not-found]
import torch
from adapters import BatchSplit, DoubleSeqBnConfig, LoRAConfig

from petstream.benchmarks.engine.cases import BOTTLENECK, LORA_ALPHA, LORA_RANK
from petstream.benchmarks.engine.row_batches import padded
from petstream.benchmarks.engine.system import Logits, Request, System
from petstream.benchmarks.engine.systems.parameters import fill
from petstream.benchmarks.engine.systems.pooled_heads import PooledHeads
from petstream.benchmarks.engine.systems.task_model import load_encoder
from petstream.benchmarks.engine.weight_files import PetFile, plain_folder, read_pets, read_rows

_SUBLAYERS = {"attention_output": "attention.output", "ffn_output": "output"}


def build(request: Request) -> System:
    """Load the backbone and add every task's adapter or LoRA under a name of its own."""
    dtype = getattr(torch, request.dtype)
    rows = read_rows(request.rows)
    pets = read_pets(request.weights)
    model = load_encoder(plain_folder(request.weights))
    adapters.init(model)
    rows_of = Counter(rows.tasks)
    names = [f"task{task}" for task in rows_of]
    (kind,) = request.kinds
    if kind == "adapter":
        factor = model.config.hidden_size / BOTTLENECK
        config = DoubleSeqBnConfig(non_linearity="gelu", reduction_factor=factor)
    else:
        config = LoRAConfig(r=LORA_RANK, alpha=LORA_ALPHA, attn_matrices=["q", "v"])
    for name in names:
        model.add_adapter(name, config=config)
    tensors = (pair for t, name in enumerate(names) for pair in _tensors(pets[t % len(pets)], name))
    num_bytes = fill(model, tensors, dtype)
    model.active_adapters = BatchSplit(*names, batch_sizes=list(rows_of.values()))
    heads = PooledHeads(pets, dtype, request.pooling)

    @torch.inference_mode()
    def run() -> Logits:
        torch.set_num_threads(request.threads)
        numbers = range(len(rows.tasks))
        ids, mask = (torch.from_numpy(values) for values in padded(rows, numbers))
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return heads.logits(hidden, mask, rows.tasks)

    version = f"adapters {adapters.__version__}, torch {torch.__version__}"
    return System(run, version, num_bytes / len(names))


def _tensors(pet: PetFile, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a PET's tensors by the names of the parameters that they are."""
    for key, values in pet.dense.items():
        _, layer, site, tensor = key.split(".", 3)
        place = f"encoder.layer.{layer}"
        if tensor.startswith("lora_"):
            tensor = tensor[:-1] + tensor[-1].upper()
            path = f"{place}.attention.self.{site}.loras.{name}.{tensor}"
        else:
            # A sequence of the projection and its activation.
            tensor = tensor.replace("adapter_down.", "adapter_down.0.")
            path = f"{place}.{_SUBLAYERS[site]}.adapters.{name}.{tensor}"
        yield path, torch.from_numpy(values)
