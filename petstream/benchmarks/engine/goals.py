"""The promised figures, by type and processor, and what a run makes of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from petstream.benchmarks.document import Goal
from petstream.benchmarks.engine import gemm
from petstream.benchmarks.engine.cases import ADAPTER, LORA, PETS_MIX, U64_128, Case
from petstream.benchmarks.engine.measuring import Measured
from workers.processor import Vendor

Cell = dict[str, Measured]
"""System -> its measurement, of one case."""

GOAL_TASKS = 64
MEMORY_RATIO = 20.0


@dataclass(frozen=True, slots=True)
class Targets:
    """One column of the promises."""

    peft: float
    batch_split: float
    merged: Mapping[str, float]
    """Over merged transformers models, by mix of lengths."""
    openvino: Mapping[str, float]
    """Likewise."""
    share_of_bare: Mapping[tuple[str, ...], float]
    """By the tasks' kinds."""
    share_of_ceiling: Mapping[str, float]
    """By backbone."""
    peft_in_float32: float | None = None
    """Of bfloat16 alone."""


def _shares_of_bare(small: float, *others: float) -> dict[tuple[str, ...], float]:
    """Return the shares of LoRA, BitFit and IA3, and of adapter, diff, mask and the mix of four."""
    kinds = (LORA, ("bitfit",), ("ia3",), ADAPTER, ("diff",), ("mask",), PETS_MIX)
    return dict(zip(kinds, (small, small, small, *others), strict=True))


_FLOAT32_SHARES = _shares_of_bare(0.88, 0.82, 0.75, 0.70, 0.75)
FLOAT32: dict[Vendor, Targets] = {
    "AMD": Targets(
        peft=3.0,
        batch_split=3.0,
        merged={"u32-128": 2.0, "n32-8": 3.0, "u4-8": 5.0},
        openvino={"u32-128": 0.95, "n32-8": 1.2, "u8-32": 1.25, "u4-8": 1.8},
        share_of_bare=_FLOAT32_SHARES,
        share_of_ceiling={"bert-base": 0.80, "minilm-l6": 0.70},
    ),
    "Intel": Targets(
        peft=2.0,
        batch_split=2.0,
        merged={"u32-128": 1.4, "n32-8": 2.2, "u4-8": 4.0},
        openvino={"u32-128": 1.05, "n32-8": 1.25, "u8-32": 1.3, "u4-8": 1.8},
        share_of_bare=_FLOAT32_SHARES,
        share_of_ceiling={"bert-base": 0.80, "minilm-l6": 0.78},
    ),
}
BFLOAT16 = Targets(
    peft=2.5,
    batch_split=2.2,
    merged={"u32-128": 2.5, "n32-8": 5.0, "u4-8": 6.0},
    openvino={"u32-128": 1.4, "n32-8": 1.7, "u8-32": 1.8, "u4-8": 2.5},
    share_of_bare=_shares_of_bare(0.82, 0.75, 0.60, 0.55, 0.65),
    share_of_ceiling={"bert-base": 0.55, "minilm-l6": 0.42},
    peft_in_float32=6.0,
)
"""On any processor that multiplies bfloat16."""


def judge(measured: Sequence[Measured], vendor: Vendor) -> list[Goal]:
    """Return the goals that these measurements can tell of: of several cases the least counts."""
    goals: list[Goal] = []
    for dtype, targets in (("float32", FLOAT32[vendor]), ("bfloat16", BFLOAT16)):
        cells: dict[Case, Cell] = {}
        for one in measured:
            if one.case.dtype == dtype:
                cells.setdefault(one.case, {})[one.system] = one
        found = [
            *_against_mixed_peers(cells, targets),
            *_against_merged_models(cells, targets),
            *_shares(cells, targets),
        ]
        suffix = "" if dtype == "float32" else f"-{dtype}"
        goals += [replace(goal, id=goal.id + suffix) for goal in found]
    return goals


def _against_mixed_peers(cells: dict[Case, Cell], targets: Targets) -> Iterator[Goal]:
    unit = "times as fast"
    found = [_over(cell, "peft") for cell in _at(cells, LORA, "u32-128")]
    yield from _least("C1-over-peft-adapter-names", targets.peft, found, unit)
    found = [_over(cell, "adapterhub") for cell in _at(cells, ADAPTER, "u32-128")]
    yield from _least("C2-over-adapterhub-batchsplit", targets.batch_split, found, unit)
    if targets.peft_in_float32 is not None:
        found = [_over(cell, "peft32") for cell in _at(cells, LORA, "u32-128")]
        yield from _least("C8-over-peft-in-float32", targets.peft_in_float32, found, unit)


def _against_merged_models(cells: dict[Case, Cell], targets: Targets) -> Iterator[Goal]:
    unit = "times as fast"
    for mix, target in targets.merged.items():
        found = [_over(cell, "transformers") for cell in _at(cells, LORA, mix)]
        yield from _least(f"C3-over-merged-transformers-{mix}", target, found, unit)
    for mix, target in targets.openvino.items():
        found = [_over(cell, "openvino") for cell in _at(cells, LORA, mix)]
        yield from _least(f"C4-over-merged-openvino-{mix}", target, found, unit)
    found = [_memory_ratio(cell, "openvino") for cell in _at(cells, LORA)]
    yield from _least("C4-memory-per-task", MEMORY_RATIO, found, "times smaller")


def _shares(cells: dict[Case, Cell], targets: Targets) -> Iterator[Goal]:
    for pets, target in targets.share_of_bare.items():
        found = [
            cell["ours"].speed_over(cell["bare"])
            for case, cell in cells.items()
            if case.pets == pets and case.mix is U64_128 and {"ours", "bare"} <= cell.keys()
        ]
        name = "pets-mix" if pets == PETS_MIX else "-".join(pets)
        yield from _least(f"C6-{name}", target, found, "of bare's speed")
    for shape, target in targets.share_of_ceiling.items():
        found = [
            share_of_ceiling(cell)
            for case, cell in cells.items()
            if case.shape.name == shape and case.threads == 1 and {"bare", "gemm"} <= cell.keys()
        ]
        yield from _least(f"C7-{shape}", target, found, "of gemm's speed")


def share_of_ceiling(cell: Cell) -> float:
    """Return the bare backbone's useful FLOP/s over those of one large product beside it."""
    work = cell["bare"].gigaflop / gemm.GIGAFLOP
    return work * cell["bare"].speed_over(cell["gemm"])


def fastest(cell: Cell, library: str) -> Measured | None:
    """Return the faster of a library's ways to batch, None if it was not run."""
    own = [one for system, one in cell.items() if system.partition("-")[0] == library]
    return min(own, key=lambda one: one.median_s, default=None)


def _at(cells: dict[Case, Cell], pets: tuple[str, ...], mix: str | None = None) -> list[Cell]:
    return [
        cell
        for case, cell in cells.items()
        if case.tasks == GOAL_TASKS
        and case.pets == pets
        and (case.mix.name == mix if mix else case.mix is not U64_128)
    ]


def _over(cell: Cell, library: str) -> float | None:
    peer = fastest(cell, library)
    return None if peer is None or "ours" not in cell else cell["ours"].speed_over(peer)


def _memory_ratio(cell: Cell, library: str) -> float | None:
    peer = fastest(cell, library)
    if peer is None or "ours" not in cell:
        return None
    own, theirs = cell["ours"].bytes_per_task, peer.bytes_per_task
    assert own is not None
    assert theirs is not None
    return theirs / own


def _least(name: str, target: float, found: Sequence[float | None], unit: str) -> Iterator[Goal]:
    values = [value for value in found if value is not None]
    if values:
        of_several = f", least of {len(values)}" if len(values) > 1 else ""
        yield Goal(name, target, min(values), unit + of_several)
