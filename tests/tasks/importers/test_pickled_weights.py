"""Pickles, honest and hostile: tensors come out, nothing else happens."""

import collections
import io
import os
import pickle
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import BadCheckpoint, ImportRefused, PickleCarriesCode, PickleTooCostly
from tasks.importers.pickled_weights import Limits, read_pickle


def saved(value: Any, **options: Any) -> bytes:  # noqa: ANN401 - whatever torch can save
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self._command,)


@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_come_out_as_they_were_saved(is_zip: bool) -> None:
    shared = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    state = collections.OrderedDict(
        a=shared,
        again=shared,
        parameter=torch.nn.Parameter(torch.ones(2)),
        turned=shared.T,
        half=torch.tensor([1.5], dtype=torch.bfloat16),
        numbers=torch.tensor([3, 4]),
        epoch=3,
    )

    tensors, skipped = read_pickle(
        saved(state, _use_new_zipfile_serialization=is_zip), "pytorch_model.bin"
    )

    assert skipped == ["epoch"]
    assert np.array_equal(tensors["a"], shared.numpy())
    assert np.array_equal(tensors["again"], shared.numpy())
    assert np.array_equal(tensors["turned"], shared.numpy().T)
    assert tensors["half"].tolist() == [1.5]
    assert tensors["numbers"].tolist() == [3, 4]


def test_a_state_dict_inside_a_training_checkpoint_is_found() -> None:
    state = {"epoch": 1, "state_dict": {"weight": torch.ones(2)}}

    tensors, _ = read_pickle(saved(state), "last.pt")

    assert list(tensors) == ["weight"]


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_is_refused_and_not_run(tmp_path: Path, is_zip: bool) -> None:
    trace = tmp_path / "it-ran"
    raw = saved(
        {"weight": torch.ones(2), "evil": Command(f"touch {trace}")},
        _use_new_zipfile_serialization=is_zip,
    )

    with pytest.raises(PickleCarriesCode, match=r"pytorch_model\.bin asks for more.*system"):
        read_pickle(raw, "pytorch_model.bin")

    assert not trace.exists()


def test_a_bare_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"

    with pytest.raises(ImportRefused):
        read_pickle(pickle.dumps(Command(f"touch {trace}")), "evil.pt")

    assert not trace.exists()


def test_a_zip_bomb_is_refused_before_it_is_opened() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (64 << 20))

    with pytest.raises(PickleTooCostly, match="compressed"):
        read_pickle(buffer.getvalue(), "bomb.bin")


def test_members_that_overlap_are_refused() -> None:
    raw = saved({"weight": torch.ones(100_000)})
    buffer = io.BytesIO(raw)
    with zipfile.ZipFile(buffer, "a") as archive:
        found = archive.getinfo("archive/data/0")
        archive.filelist += [found] * 5
        archive._didModify = True  # type: ignore[attr-defined]  # writes the directory again

    with pytest.raises(PickleTooCostly, match="declares"):
        read_pickle(buffer.getvalue(), "bomb.bin")


def test_a_tensor_that_repeats_one_number_without_end_is_refused() -> None:
    raw = saved({"weight": torch.ones(1).expand(1 << 40)})

    with pytest.raises(PickleTooCostly, match="more than"):
        read_pickle(raw, "bomb.bin")


def test_memory_of_the_child_is_bounded() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # 300 million references to one tuple, which the pickle asks for in 300 bytes of text each.
    bomb = b"\x80\x02(" + b"]q\x00" + b"(" + b"h\x00" * 1000 + b"e" + b"l."
    doubling = b"\x80\x02(K\x01t" + b"".join(
        b"q%c(" % i + b"h%c" % i * 100 + b"t" for i in range(1, 8)
    )
    for raw in (bomb, doubling + b"."):
        with pytest.raises(ImportRefused):
            read_pickle(raw, "bomb.pt", Limits(memory_bytes=64 << 20, cpu_s=20))

    grown = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - before
    assert grown < 2_000_000  # KiB; torch itself takes most of it


def test_a_long_text_that_does_not_fit_is_too_costly() -> None:
    raw = saved({"weight": torch.ones(20_000_000)})

    with pytest.raises(PickleTooCostly):
        read_pickle(raw, "large.bin", Limits(memory_bytes=32 << 20, cpu_s=20))


def test_a_reader_that_takes_too_long_is_ended() -> None:
    raw = saved({"weight": torch.ones(2)})

    with pytest.raises(PickleTooCostly, match=r"within 0\.05 s"):
        read_pickle(raw, "slow.bin", Limits(memory_bytes=64 << 20, wall_s=0.05))


@pytest.mark.parametrize(
    ("is_zip", "kept"),
    [(True, 0.0), (True, 0.01), (True, 0.5), (True, 0.99), (False, 0.001), (False, 0.5)],
)
def test_a_file_cut_off_is_refused(kept: float, is_zip: bool) -> None:
    raw = saved({"weight": torch.ones(1000)}, _use_new_zipfile_serialization=is_zip)
    part = raw[: int(kept * len(raw))]

    with pytest.raises(BadCheckpoint, match=r"cut\.bin"):
        read_pickle(part, "cut.bin")


@pytest.mark.parametrize("value", [[torch.ones(2)], {3: torch.ones(2)}])
def test_what_is_no_mapping_of_tensors_is_refused(value: Any) -> None:  # noqa: ANN401
    with pytest.raises(BadCheckpoint, match=r"odd\.bin"):
        read_pickle(saved(value), "odd.bin")


def test_deep_nesting_harms_nobody() -> None:
    raw = b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b"."

    with pytest.raises(ImportRefused):
        read_pickle(raw, "deep.pt")


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_bytes_end_in_a_typed_error(data: st.DataObject) -> None:
    start = data.draw(st.sampled_from([b"", b"\x80\x02", b"\x80\x02}(", b"PK\x03\x04"]))
    raw = start + data.draw(st.binary(max_size=400))

    with pytest.raises(ImportRefused):
        read_pickle(raw, "noise.bin")
