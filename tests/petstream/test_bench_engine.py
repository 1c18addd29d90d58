"""`petstream bench engine`: its cases, its goals, its check, and a tiny run of real systems."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from petstream.benchmarks.dense_task import DenseTask
from petstream.benchmarks.engine import environments, gemm
from petstream.benchmarks.engine.cases import (
    ADAPTER,
    BERT_BASE,
    KINDS,
    LORA,
    MERGEABLE,
    MINILM,
    MIXES,
    N32_8,
    PETS_MIX,
    U4_8,
    U8_32,
    U32_128,
    U64_128,
    Case,
    LengthMix,
    Pooling,
    Rows,
    Shape,
    draw_rows,
    full_cases,
    in_bfloat16,
    short_cases,
)
from petstream.benchmarks.engine.children import Children, SystemFailed
from petstream.benchmarks.engine.curves import (
    cases_over_kinds,
    cases_over_tasks,
    cases_over_tokens,
    curve_cases,
)
from petstream.benchmarks.engine.environments import Environment, left_out
from petstream.benchmarks.engine.goals import judge
from petstream.benchmarks.engine.kept_cells import Conditions, KeptCells
from petstream.benchmarks.engine.measuring import (
    AnswersDifferError,
    Measured,
    different_systems,
    measure,
)
from petstream.benchmarks.engine.pets import PETS
from petstream.benchmarks.engine.row_batches import batches_by_task
from petstream.benchmarks.engine.suite import Suite, as_row
from petstream.benchmarks.engine.systems.task_model import load_task_model
from petstream.benchmarks.engine.weight_files import (
    PetFile,
    merged_folder,
    pet_path,
    plain_folder,
)
from petstream.benchmarks.engine.weight_writer import WeightWriter
from petstream.commands.bench import app
from tests.workers.dense_reference import merged_model, plain_model, reference_logits
from workers.processor import Vendor, this_processor

TINY = Shape("tiny", layers=2, hidden=128, heads=4, intermediate=256, vocabulary=2000)
SHORT_GOALS = {
    "C1-over-peft-adapter-names",
    "C2-over-adapterhub-batchsplit",
    *(f"C3-over-merged-transformers-{mix}" for mix in ("u32-128", "n32-8", "u4-8")),
    *(f"C4-over-merged-openvino-{mix.name}" for mix in MIXES),
    "C4-memory-per-task",
    *(f"C6-{kind}" for kind in KINDS if kind != "lora-all-linear"),
    "C6-pets-mix",
    "C7-minilm-l6",
    "C7-bert-base",
}


def measured(
    case: Case, system: str, *times_s: float, bytes_per_task: float | None = 1e6
) -> Measured:
    return Measured(case, system, "a library 1", 100, 2.0, times_s or (1.0,), 0.0, bytes_per_task)


def case_of(pets: tuple[str, ...] = LORA, *, tasks: int = 64) -> Case:
    return Case(MINILM, U32_128, tasks, pets, ())


@pytest.mark.parametrize("cases", [short_cases(), full_cases()], ids=["short", "full"])
def test_a_run_can_tell_of_every_goal(cases: list[Case]) -> None:
    found = judge([measured(case, system) for case in cases for system in case.systems], "AMD")

    assert {goal.id for goal in found} == SHORT_GOALS


def test_the_full_run_has_every_length_number_of_tasks_and_threads() -> None:
    grid = {(c.shape, c.mix, c.tasks, c.threads) for c in full_cases() if c.pets == LORA}

    assert {
        (shape, mix, tasks, threads)
        for shape in (MINILM, BERT_BASE)
        for mix in MIXES
        for tasks in (1, 4, 16, 64, 256)
        for threads in (1, 2)
    } <= grid
    assert len({case.label for case in full_cases()}) == len(full_cases())


def test_the_curve_over_tasks_keeps_the_queries_and_shares_them_out() -> None:
    cases = cases_over_tasks()

    assert [(case.tasks, case.rows) for case in cases] == [
        *((1, 64), (4, 64), (16, 64), (64, 64), (256, 256))
    ]
    assert {(case.mix, case.pets) for case in cases} == {(N32_8, LORA)}


def test_the_curve_over_tokens_has_every_length_and_peft() -> None:
    cases = cases_over_tokens()

    assert [case.mix for case in cases] == [U4_8, U8_32, N32_8, U32_128]
    assert {(case.tasks, case.rows, case.pets) for case in cases} == {(64, 64, LORA)}
    assert all("peft-padded" in case.systems for case in cases)


def test_the_curve_over_kinds_has_each_at_three_lengths_beside_the_bare_backbone() -> None:
    cases = cases_over_kinds()

    assert len(cases) == len(KINDS) * 3 + 3
    assert {(case.pets, case.mix) for case in cases} == {
        (pets, mix)
        for pets in (*((kind,) for kind in KINDS), PETS_MIX)
        for mix in (U4_8, U8_32, U64_128)
    }
    assert {(case.tasks, case.rows) for case in cases} == {(16, 16)}
    assert {tuple(s for s in case.systems if s != "gemm") for case in cases} == {("ours", "bare")}


def test_curves_have_the_merged_models_in_every_way_and_no_cell_twice() -> None:
    cases = curve_cases()
    merged = {
        *("transformers-padded", "transformers-sorted-8"),
        *("onnxruntime-rows", "onnxruntime-sorted-8", "openvino-rows", "openvino-sorted-8"),
    }

    assert len({case.label for case in cases}) == len(cases) == 5 + 4 - 1 + 24
    assert {(case.shape, case.threads, case.dtype) for case in cases} == {(MINILM, 1, "float32")}
    for case in (*cases_over_tasks(), *cases_over_tokens()):
        assert {"ours", "bare", "seqs", *merged} <= {*case.systems}


def test_curves_share_the_cells_that_the_short_form_has() -> None:
    """By name, so that figures of both can be laid side by side; BERT-base is in no curve."""
    curves = {case.label for case in curve_cases()}

    assert {case.label for case in short_cases()} - curves == {
        "minilm-l6/u32-128/64/adapter/1t/float32",
        "bert-base/u64-128/1/lora-query-value/1t/float32",
    }


def test_side_by_side_needs_two_threads() -> None:
    """With one, ParS would only be SeqS again."""
    assert {c.threads for c in full_cases() if "pars" in c.systems} == {2}


def test_bfloat16_is_for_those_who_have_it() -> None:
    systems = {system for case in in_bfloat16(full_cases()) for system in case.systems}

    peers = {"peft-padded", "transformers-padded", "adapterhub-padded", "openvino-rows"}
    assert peers | {"ours", "bare", "seqs", "pars", "gemm", "peft32-padded"} <= systems
    assert not {"onnxruntime-rows", "onnxruntime-sorted-8"} & systems


@pytest.mark.parametrize("mix", [*MIXES, U64_128], ids=lambda mix: str(mix.name))
def test_rows_are_the_same_at_each_draw_and_as_many_of_each_task(mix: LengthMix) -> None:
    case = replace(case_of(tasks=4), mix=mix)
    rows, again = draw_rows(case), draw_rows(case)

    assert all((a == b).all() for a, b in zip(rows.token_ids, again.token_ids, strict=True))
    assert [len(list(group)) for _, group in groupby(rows.tasks)] == [16, 16, 16, 16]
    lens = [len(ids) for ids in rows.token_ids]
    low, high = {"u4-8": (4, 8), "u8-32": (8, 32), "u64-128": (64, 128)}.get(
        case.mix.name, (4, 128)
    )
    assert low <= min(lens) <= max(lens) <= high


def rows_of(tasks: Sequence[int], lens: Sequence[int]) -> Rows:
    return Rows(tuple(np.ones(length, np.int64) for length in lens), tuple(tasks))


def test_a_task_s_rows_are_sorted_into_eights() -> None:
    rows = rows_of([0] * 9 + [1], [9, 8, 7, 6, 5, 4, 3, 2, 1, 5])

    assert batches_by_task(rows, "sorted-8") == [[8, 7, 6, 5, 4, 3, 2, 1], [0], [9]]
    assert batches_by_task(rows, "padded") == [list(range(9)), [9]]
    assert len(batches_by_task(rows, "rows")) == 10


def test_with_one_row_to_a_task_all_ways_of_batching_are_one() -> None:
    systems = ("transformers-padded", "transformers-sorted-8", "openvino-rows", "openvino-sorted-8")

    assert different_systems(systems, rows_of(range(4), [5] * 4)) == [systems[0], systems[2]]
    assert different_systems(systems, rows_of([0] * 9, range(1, 10))) == list(systems)


def test_with_eight_rows_to_a_task_padded_and_sorted_in_eights_are_one() -> None:
    systems = ("transformers-padded", "transformers-sorted-8", "openvino-rows", "openvino-sorted-8")

    found = different_systems(systems, rows_of([0] * 8, [9, 3, 7, 5, 8, 4, 6, 2]))

    assert found == [systems[0], *systems[2:]]


def test_a_goal_is_the_median_of_passes_side_by_side() -> None:
    """A slow spell of the machine hits both passes of a pair and leaves their ratio."""
    case = case_of()
    passes = [measured(case, "ours", 1.0, 9.0, 1.0), measured(case, "peft-padded", 3.5, 31.5, 2.5)]

    (goal,) = judge(passes, "AMD")

    assert goal.id == "C1-over-peft-adapter-names"
    assert goal.value == 3.5
    assert goal.met


def test_of_several_cases_the_least_counts() -> None:
    cases = [case_of(), replace(case_of(), shape=BERT_BASE)]
    passes = [
        measured(case, *entry)
        for case, theirs in zip(cases, (4.0, 2.0), strict=True)
        for entry in (("ours", 1.0), ("peft-padded", theirs))
    ]

    (goal,) = judge(passes, "AMD")

    assert goal.value == 2.0
    assert not goal.met


def test_intel_has_goals_of_its_own() -> None:
    case = case_of(ADAPTER)
    passes = [measured(case, "ours", 1.0), measured(case, "adapterhub-padded", 2.5)]

    assert [(g.target, g.met) for g in judge(passes, "AMD")] == [(3.0, False)]
    assert [(g.target, g.met) for g in judge(passes, "Intel")] == [(2.0, True)]


def test_the_peer_s_better_way_to_batch_counts() -> None:
    case = replace(case_of(), mix=N32_8)
    passes = [
        measured(case, "ours", 1.0, bytes_per_task=2e6),
        measured(case, "openvino-rows", 3.0, bytes_per_task=90e6),
        measured(case, "openvino-sorted-8", 1.5, bytes_per_task=90e6),
    ]

    values = {goal.id: goal.value for goal in judge(passes, "AMD")}

    assert values == {"C4-over-merged-openvino-n32-8": 1.5, "C4-memory-per-task": 45.0}


def test_what_was_not_measured_is_not_judged() -> None:
    """Neither without the peer, nor at other numbers of tasks."""
    other = case_of(tasks=16)
    pairs = [measured(other, system) for system in ("ours", "peft-padded")]

    assert judge([measured(case_of(), "ours"), *pairs], "AMD") == []


def test_each_type_has_goals_of_its_own() -> None:
    """And bfloat16 is held to PEFT in float32 as well, whatever the vendor."""
    rounded = replace(case_of(), dtype="bfloat16")
    passes = [
        *(measured(case, "ours", 1.0) for case in (case_of(), rounded)),
        *(measured(case, "peft-padded", 2.75) for case in (case_of(), rounded)),
        measured(rounded, "peft32-padded", 7.0),
    ]

    targets: dict[Vendor, float] = {"AMD": 3.0, "Intel": 2.0}
    for vendor, target in targets.items():
        found = {goal.id: (goal.target, goal.value) for goal in judge(passes, vendor)}

        assert found == {
            "C1-over-peft-adapter-names": (target, 2.75),
            "C1-over-peft-adapter-names-bfloat16": (2.5, 2.75),
            "C8-over-peft-in-float32-bfloat16": (6.0, 7.0),
        }


def test_the_bare_backbone_is_held_to_a_large_product() -> None:
    """As much work in twice the time is half the ceiling."""
    case = replace(case_of(tasks=1), mix=U64_128)
    bare = replace(measured(case, "bare", 2.0), gigaflop=gemm.GIGAFLOP)

    (goal,) = judge([bare, measured(case, "gemm", 1.0)], "AMD")

    assert (goal.id, goal.value) == ("C7-minilm-l6", 0.5)


def test_the_work_of_a_row_is_its_products_and_its_attention() -> None:
    linear = 2 * 2 * (4 * 128 * 128 + 2 * 128 * 256) * 10
    attention = 2 * 4 * 128 * (3**2 + 7**2)

    assert TINY.gigaflop([3, 7]) == pytest.approx((linear + attention) / 1e9)


def test_the_processor_says_whose_goals_hold_and_whether_it_has_bfloat16(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 amx_bf16 amx_tile\n")

    assert this_processor(cpuinfo).vendor == "Intel"
    assert this_processor(cpuinfo).has_bfloat16
    cpuinfo.write_text("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2\n")
    assert this_processor(cpuinfo).vendor == "AMD"
    assert not this_processor(cpuinfo).has_bfloat16


def test_a_peer_without_environment_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Environment(tmp_path / "python", "make bench-env")
    monkeypatch.setitem(environments.ENVIRONMENTS, "openvino_models", nowhere)

    assert left_out(["ours", "openvino-rows", "transformers-padded"]) == {
        "openvino-rows": "make bench-env"
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["engine", "--only", "no-such-case"], "no case has 'no-such-case' in its name"),
        (["engine", "--dtype", "float16"], "--dtype is float32 or bfloat16, not float16"),
        (["engine", "--full", "--curves"], "--full and --curves each choose the cases"),
        (["engine", "--curves", "--only", "bert-base"], "no case has 'bert-base' in its name"),
    ],
)
def test_wrong_use_says_what_is_right(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 2
    assert said in result.stderr


def test_cases_are_chosen_by_a_part_of_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`*` stands for anything between two parts."""
    monkeypatch.setattr("petstream.benchmarks.engine.kept_cells.commit", lambda: "abc1234")
    path = tmp_path / "cases.jsonl"
    kept = KeptCells(path, Conditions.of_this_run(5))
    wanted = [case for case in full_cases() if case.shape is MINILM and case.threads == 2]
    for case in wanted:
        kept.keep(case, [measured(case, "ours", *([1.0] * 5))])

    chosen = ("--only", "minilm-l6/*/2t/", "--dtype", "float32")
    result = CliRunner().invoke(app, ["engine", "--full", *chosen, "--resume", str(path)])

    assert result.exit_code == 0
    assert f"{len(wanted)} of {len(wanted)}" in result.stdout


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> WeightWriter:
    """Folders of weights of a tiny random backbone, written where a test asks for them."""
    return WeightWriter(tmp_path_factory.mktemp("weights"), Path("no-catalogue"))


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    """Processes of all tests here: torch is slow to import."""
    with Children(tmp_path_factory.mktemp("logs")) as started:
        yield started


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_answers_as_the_tests_own_reference(
    kind: str, pooling: Pooling, writer: WeightWriter
) -> None:
    """Two independent ways to write a PET into a model of transformers."""
    folder = writer.folder(TINY, (kind,))
    pet = PetFile.read(pet_path(folder, 1))
    task = DenseTask(
        *("task", "single_label", PETS[kind], pet.dense, pet.head_weight, pet.head_bias, pooling)
    )
    ids = np.arange(5, 22)
    expected = reference_logits(merged_model(plain_model(plain_folder(folder)), task), task, ids)

    with torch.inference_mode():
        row = torch.from_numpy(ids)[None]
        found = load_task_model(folder, 1, pooling)(row, torch.ones_like(row))[0].numpy()

    assert merged_folder(folder, 1).is_dir() == (kind in MERGEABLE)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_systems_of_the_product_are_checked_and_timed(tmp_path: Path) -> None:
    """The whole run: both ways to batch merged models, every kind of the paper, two threads."""
    merged = ("ours", "seqs", "transformers-padded", "transformers-sorted-8")
    cases = [
        Case(TINY, U4_8, 2, LORA, merged, rows=18),
        Case(TINY, U4_8, 4, LORA, ("ours", "pars"), rows=4, threads=2),
        Case(TINY, U4_8, 2, LORA, (*merged, "bare"), rows=18, pooling="cls"),
        Case(TINY, U8_32, 4, PETS_MIX, ("ours", "bare", "gemm"), rows=4),
    ]

    cells = list(Suite(tmp_path, Path("no-catalogue")).run(cases))

    assert [tuple(one.system for one in cell) for cell in cells] == [c.systems for c in cases]
    for one in (one for cell in cells for one in cell):
        assert len(one.times_s) == 5
        assert min(one.times_s) > 0
        if one.system in ("bare", "gemm"):
            assert one.max_difference is None
        else:
            assert one.max_difference is not None
            assert one.max_difference < 1e-4
    row = as_row(cells[0][2], cells[0])
    assert row["case"] == "tiny/u4-8/2/lora-query-value/1t/float32"
    assert row["ours_is_faster"] == cells[0][0].speed_over(cells[0][2])
    assert not list(tmp_path.glob("tiny-*-value")), "weights that no case needs are removed"


@pytest.mark.slow
def test_systems_of_the_product_run_in_bfloat16_too(
    writer: WeightWriter, children: Children
) -> None:
    """Their answers are rounded, and within what that may cost."""
    case = Case(
        TINY, U4_8, 2, LORA, ("ours", "bare", "seqs", "gemm", "transformers-padded"), rows=4
    )

    found = measure(replace(case, dtype="bfloat16"), writer.folder(TINY, LORA), children, repeats=5)

    assert [one.system for one in found] == [*case.systems]
    differences = [one.max_difference for one in found if one.max_difference is not None]
    assert len(differences) == 3
    assert min(differences) > 1e-4, "float32 would be nearer"


@pytest.mark.slow
def test_a_system_that_answers_otherwise_is_not_timed(
    writer: WeightWriter, children: Children
) -> None:
    """One of the four merged models is another task's than the PET beside it."""
    folder = writer.folder(TINY, ("ia3",))
    model = "model.safetensors"
    other = (merged_folder(folder, 3) / model).read_bytes()
    (merged_folder(folder, 2) / model).write_bytes(other)
    case = Case(TINY, U4_8, 4, ("ia3",), ("seqs", "ours"), rows=4)

    with pytest.raises(AnswersDifferError, match=r"logits of ours differ .* nothing was timed"):
        measure(case, folder, children, repeats=5)

    without_it = measure(replace(case, tasks=2), folder, children, repeats=5)
    assert [one.system for one in without_it] == ["seqs", "ours"]


@pytest.mark.slow
def test_a_process_that_is_killed_is_named_and_costs_no_later_case(
    writer: WeightWriter, tmp_path: Path
) -> None:
    """By the kernel for want of memory, say."""
    case = Case(TINY, U4_8, 2, LORA, ("ours", "transformers-padded"), rows=2)
    folder = writer.folder(TINY, LORA)
    with Children(tmp_path) as children:
        killed = children.of("petstream_engine", 1)
        killed._process.kill()
        killed._process.wait()

        with pytest.raises(SystemFailed, match="ours could not build"):
            measure(case, folder, children, repeats=5)
        again = measure(case, folder, children, repeats=5)

        assert [one.system for one in again] == [*case.systems]
        children.of("petstream_engine", 1)._process.kill()
        others = children.of("transformers_models", 1)

    assert not others.runs, "no process stays behind"


@pytest.mark.slow
def test_a_system_that_cannot_be_built_is_named_with_its_error(
    writer: WeightWriter, children: Children
) -> None:
    folder = writer.folder(TINY, ("bitfit",))
    pet_path(folder, 3).unlink()
    case = Case(TINY, U4_8, 1, ("bitfit",), ("ours",), rows=1)

    with pytest.raises(SystemFailed, match=r"ours could not build: .*pet-3.safetensors"):
        measure(case, folder, children, repeats=5)


@pytest.mark.slow
@pytest.mark.skipif(
    bool(left_out(["peft-padded", "adapterhub-padded"])), reason="needs `make bench-env`"
)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_every_peer_answers_as_the_merged_models(
    writer: WeightWriter, children: Children, pooling: Pooling
) -> None:
    lora = ("peft-padded", "adapterhub-padded", "onnxruntime-sorted-8", "openvino-sorted-8")
    for pets, systems in ((LORA, lora), (ADAPTER, ("adapterhub-padded",))):
        case = Case(TINY, U4_8, 2, pets, systems, rows=6, pooling=pooling)
        found = measure(case, writer.folder(TINY, pets), children, repeats=5)
        assert [one.system for one in found] == [*systems]
