"""The kinds of PET that cases name, with sizes as in the papers."""

from petstream.benchmarks.engine.cases import BOTTLENECK, LORA_ALPHA, LORA_RANK
from tasks.pets.adapter import Adapter
from tasks.pets.bitfit import BitFit
from tasks.pets.diff import Diff
from tasks.pets.ia3 import Ia3
from tasks.pets.kinds import AnyPet
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask

PETS: dict[str, AnyPet] = {
    "lora-query-value": Lora(rank=LORA_RANK, alpha=LORA_ALPHA, sites=("query", "value")),
    "lora-all-linear": Lora(rank=LORA_RANK, alpha=LORA_ALPHA),
    "bitfit": BitFit(),
    "ia3": Ia3(),
    # As AdapterHub's DoubleSeqBnConfig: the LayerNorms stay the backbone's.
    "adapter": Adapter(
        placement="houlsby", bottleneck=BOTTLENECK, activation="gelu", own_norms=False
    ),
    "diff": Diff(),
    "mask": Mask(),
}
