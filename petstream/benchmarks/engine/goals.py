"""The promised figures, by processor vendor, and what a run makes of them. float32 only."""

from collections.abc import Iterator, Sequence

from petstream.benchmarks.document import Goal
from petstream.benchmarks.engine import gemm
from petstream.benchmarks.engine.cases import ADAPTER, LORA, PETS_MIX, U64_128, Case
from petstream.benchmarks.engine.measuring import Measured
from workers.processor import Vendor

Cell = dict[str, Measured]
"""System -> its measurement, of one case."""

GOAL_TASKS = 64
MEMORY_RATIO = 20.0

PEFT: dict[Vendor, float] = {"AMD": 3.0, "Intel": 2.0}
BATCH_SPLIT: dict[Vendor, float] = {"AMD": 3.0, "Intel": 2.0}
MERGED: dict[Vendor, dict[str, float]] = {
    "AMD": {"u32-128": 2.0, "n32-8": 3.0, "u4-8": 5.0},
    "Intel": {"u32-128": 1.4, "n32-8": 2.2, "u4-8": 4.0},
}
OPENVINO: dict[Vendor, dict[str, float]] = {
    "AMD": {"u32-128": 0.95, "n32-8": 1.2, "u8-32": 1.25, "u4-8": 1.8},
    "Intel": {"u32-128": 1.05, "n32-8": 1.25, "u8-32": 1.3, "u4-8": 1.8},
}
SHARE_OF_BARE: dict[tuple[str, ...], float] = {
    LORA: 0.88,
    ("bitfit",): 0.88,
    ("ia3",): 0.88,
    ADAPTER: 0.82,
    ("diff",): 0.75,
    ("mask",): 0.70,
    PETS_MIX: 0.75,
}
SHARE_OF_CEILING: dict[Vendor, dict[str, float]] = {
    "AMD": {"bert-base": 0.80, "minilm-l6": 0.70},
    "Intel": {"bert-base": 0.80, "minilm-l6": 0.78},
}


def judge(measured: Sequence[Measured], vendor: Vendor) -> list[Goal]:
    """Return the goals that these measurements can tell of: of several cases the least counts."""
    cells: dict[Case, Cell] = {}
    for one in measured:
        if one.case.dtype == "float32":
            cells.setdefault(one.case, {})[one.system] = one
    goals = [*_against_mixed_peers(cells, vendor), *_against_merged_models(cells, vendor)]
    return [*goals, *_shares(cells, vendor)]


def _against_mixed_peers(cells: dict[Case, Cell], vendor: Vendor) -> Iterator[Goal]:
    unit = "times as fast"
    found = [_over(cell, "peft") for cell in _at(cells, LORA, "u32-128")]
    yield from _least("C1-over-peft-adapter-names", PEFT[vendor], found, unit)
    found = [_over(cell, "adapterhub") for cell in _at(cells, ADAPTER, "u32-128")]
    yield from _least("C2-over-adapterhub-batchsplit", BATCH_SPLIT[vendor], found, unit)


def _against_merged_models(cells: dict[Case, Cell], vendor: Vendor) -> Iterator[Goal]:
    unit = "times as fast"
    for mix, target in MERGED[vendor].items():
        found = [_over(cell, "transformers") for cell in _at(cells, LORA, mix)]
        yield from _least(f"C3-over-merged-transformers-{mix}", target, found, unit)
    for mix, target in OPENVINO[vendor].items():
        found = [_over(cell, "openvino") for cell in _at(cells, LORA, mix)]
        yield from _least(f"C4-over-merged-openvino-{mix}", target, found, unit)
    found = [_memory_ratio(cell, "openvino") for cell in _at(cells, LORA)]
    yield from _least("C4-memory-per-task", MEMORY_RATIO, found, "times smaller")


def _shares(cells: dict[Case, Cell], vendor: Vendor) -> Iterator[Goal]:
    for pets, target in SHARE_OF_BARE.items():
        found = [
            cell["ours"].speed_over(cell["bare"])
            for case, cell in cells.items()
            if case.pets == pets and case.mix is U64_128 and {"ours", "bare"} <= cell.keys()
        ]
        name = "pets-mix" if pets == PETS_MIX else "-".join(pets)
        yield from _least(f"C6-{name}", target, found, "of bare's speed")
    for shape, target in SHARE_OF_CEILING[vendor].items():
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
