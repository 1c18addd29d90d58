"""Reading artifacts: what is valid comes back exactly, each violation has its own error."""

import hashlib
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.artifact import open_artifact
from tasks.backbone_shape import BackboneShape
from tasks.errors import (
    ArtifactError,
    ArtifactMissing,
    BackboneMismatch,
    BackboneUnknown,
    BadDescription,
    BadIndices,
    BadWeightFile,
    ChecksumMismatch,
    FileTooLarge,
    FormatForbidden,
    LevelNotFound,
    MissingTensor,
    NonFiniteWeights,
    PathEscape,
    RankOutOfRange,
    TensorShapeMismatch,
    TensorTypeMismatch,
    TooManyTokens,
    UnexpectedTensor,
)
from tests.tasks.artifacts import BACKBONE, PETS, SHAPE, SHAPES, dense_tensors, trained_level, write

Tensors = dict[str, NDArray[Any]]
WEIGHTS = "level-0.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid artifact with one LoRA level."""
    return write(tmp_path / "weather").folder


def load(folder: Path) -> None:
    """Read everything of an artifact."""
    open_artifact(folder).validate(SHAPES)


def pin(folder: Path) -> None:
    """Make the description pin the weight file as it is, so that other checks are reached."""
    path = folder / "task.json"
    task = json.loads(path.read_bytes())
    task["levels"][0]["sha256"] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    path.write_text(json.dumps(task))


def replace_weights(folder: Path, raw: bytes) -> None:
    """Put other bytes in the weight file's place, correctly pinned."""
    (folder / WEIGHTS).write_bytes(raw)
    pin(folder)


def change_tensors(folder: Path, change: Callable[[Tensors], object]) -> None:
    """Change the tensors of the weight file, correctly pinned."""
    tensors = safetensors.numpy.load((folder / WEIGHTS).read_bytes())
    change(tensors)
    replace_weights(folder, safetensors.numpy.save(tensors))


def safetensors_bytes(header: object, data: bytes = b"") -> bytes:
    """Return a file with any header at all."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(start: int, end: int, shape: list[int] | None = None, dtype: str = "F16") -> object:
    """Return a tensor's entry in a header."""
    shape = [(end - start) // 2] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


# --- valid artifacts ---------------------------------------------------------------------------


@pytest.mark.parametrize("pet", PETS)
def test_weights_come_back_exactly(tmp_path: Path, pet: str) -> None:
    """What float16 holds is read as it was written, head included."""
    level = trained_level(PETS[pet])
    artifact = write(tmp_path / "a", level)

    weights = artifact.load_level(0, SHAPE, backbone_digest=BACKBONE.digest)

    assert weights.kind == PETS[pet].kind
    assert weights.num_bytes == (tmp_path / "a" / WEIGHTS).stat().st_size
    assert weights.head_weight is not None
    np.testing.assert_array_equal(weights.head_weight, level.head_weight)
    np.testing.assert_array_equal(weights.head_bias, level.head_bias)
    assert weights.head_weight.dtype == np.float32
    expected = PETS[pet].decode(SHAPE, PETS[pet].encode(SHAPE, level.tensors))
    assert weights.sites.keys() == expected.keys()


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)
@given(
    pet=st.sampled_from(sorted(PETS)),
    seed=st.integers(0, 2**32 - 1),
    density=st.sampled_from([0.0, 0.005, 0.05, 0.5, 1.0]),
)
def test_any_weights_come_back(tmp_path: Path, pet: str, seed: int, density: float) -> None:
    """Round trip through the disk: decoding and encoding again gives the stored tensors."""
    shutil.rmtree(tmp_path / "a", ignore_errors=True)
    level = trained_level(PETS[pet], seed=seed, density=density)
    artifact = write(tmp_path / "a", level)

    weights = artifact.load_level(0, SHAPE)
    stored = safetensors.numpy.load((tmp_path / "a" / WEIGHTS).read_bytes())

    np.testing.assert_array_equal(weights.head_weight, level.head_weight)
    expected = PETS[pet].encode(SHAPE, dense_tensors(PETS[pet], seed=seed, density=density))
    del stored["head.weight"], stored["head.bias"]
    assert {name: found.tobytes() for name, found in stored.items()} == {
        name: wanted.tobytes() for name, wanted in expected.items()
    }


def test_a_description_of_another_writer_is_read(folder: Path) -> None:
    """Not canonical, but valid: the digest is of the bytes as they are."""
    path = folder / "task.json"
    path.write_text(json.dumps(json.loads(path.read_bytes())))

    artifact = open_artifact(folder)

    assert artifact.digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    artifact.validate(SHAPES)


def test_float32_weights_are_read(tmp_path: Path) -> None:
    """Both float types are part of the format."""
    folder = write(tmp_path / "a").folder
    change_tensors(
        folder,
        lambda tensors: tensors.update(
            {name: values.astype(np.float32) for name, values in tensors.items()}
        ),
    )

    load(folder)


# --- folder and files --------------------------------------------------------------------------


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    """With its path."""
    with pytest.raises(ArtifactMissing, match="nowhere"):
        open_artifact(tmp_path / "nowhere")


@pytest.mark.parametrize("file", ["task.json", WEIGHTS])
def test_a_missing_file_is_told(folder: Path, file: str) -> None:
    """With its name."""
    (folder / file).unlink()

    with pytest.raises(ArtifactMissing, match=file):
        load(folder)


def test_an_archive_is_no_artifact(folder: Path, tmp_path: Path) -> None:
    """Archives are not opened, whatever is in them."""
    archive = tmp_path / "weather.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(folder / "task.json", "../../task.json")

    with pytest.raises(FormatForbidden, match="archives"):
        open_artifact(archive)


@pytest.mark.parametrize("file", ["task.json", WEIGHTS])
def test_a_link_for_a_file_escapes(folder: Path, tmp_path: Path, file: str) -> None:
    """Even to a valid file."""
    shutil.move(folder / file, tmp_path / "elsewhere")
    (folder / file).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(PathEscape, match="link"):
        load(folder)


@pytest.mark.parametrize("file", ["task.json", WEIGHTS])
def test_a_folder_or_pipe_for_a_file_is_refused(folder: Path, file: str) -> None:
    """A pipe without a writer must not block the reader."""
    (folder / file).unlink()
    os.mkfifo(folder / file)
    with pytest.raises(PathEscape, match="regular"):
        load(folder)

    (folder / file).unlink()
    (folder / file).mkdir()
    with pytest.raises(PathEscape, match="regular"):
        load(folder)


def test_a_link_for_an_inner_folder_escapes(folder: Path, tmp_path: Path) -> None:
    """A store's task folder that leads elsewhere."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "weather").symlink_to(folder)

    with pytest.raises(PathEscape, match="link"):
        open_artifact(tmp_path / "store", ("weather",))


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc", "a\0b"])
def test_an_inner_name_that_is_not_plain_escapes(folder: Path, name: str) -> None:
    """Names come over the wire."""
    with pytest.raises(PathEscape):
        open_artifact(folder, (name,))


@pytest.mark.parametrize("name", ["../weather/level-0.safetensors", "/etc/passwd"])
def test_a_described_path_escapes(folder: Path, name: str) -> None:
    """Also where the path leads back into the folder."""
    path = folder / "task.json"
    path.write_text(path.read_text().replace(WEIGHTS, name))

    with pytest.raises(PathEscape):
        open_artifact(folder)


def test_a_described_pickle_is_refused(folder: Path) -> None:
    """By its name."""
    path = folder / "task.json"
    path.write_text(path.read_text().replace(WEIGHTS, "pytorch_model.bin"))

    with pytest.raises(FormatForbidden):
        open_artifact(folder)


def test_a_huge_weight_file_is_not_read(folder: Path) -> None:
    """A sparse file of 1 TiB: what the description allows is known before."""
    os.truncate(folder / WEIGHTS, 1 << 40)

    with pytest.raises(FileTooLarge):
        load(folder)


def test_a_huge_description_is_not_read(folder: Path) -> None:
    """The same for the description."""
    os.truncate(folder / "task.json", 1 << 40)

    with pytest.raises(FileTooLarge):
        load(folder)


# --- checksums ---------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 8, 100, -1])
def test_any_changed_byte_breaks_the_checksum(folder: Path, position: int) -> None:
    """Header or data."""
    raw = bytearray((folder / WEIGHTS).read_bytes())
    raw[position] ^= 1
    (folder / WEIGHTS).write_bytes(raw)

    with pytest.raises(ChecksumMismatch):
        load(folder)


def test_weights_changed_after_opening_are_refused(folder: Path) -> None:
    """Check and use see the same bytes: valid weights of another training are not taken."""
    artifact = open_artifact(folder)
    other = write(folder.parent / "other", trained_level(seed=9)).folder
    shutil.copyfile(other / WEIGHTS, folder / WEIGHTS)

    with pytest.raises(ChecksumMismatch):
        artifact.load_level(0, SHAPE)


def test_a_description_that_is_not_the_registered_one_is_refused(folder: Path) -> None:
    """The digest of the reference decides."""
    artifact = open_artifact(folder)

    assert open_artifact(folder, expected_digest=artifact.digest) == artifact
    with pytest.raises(ChecksumMismatch):
        open_artifact(folder, expected_digest="sha256:" + "0" * 64)


# --- safetensors -------------------------------------------------------------------------------

HEAD_BYTES = 3 * 8 * 2

MALFORMED = {
    "empty": b"",
    "short": b"\x01\x02\x03",
    "a pickle": pickle.dumps({"weight": [1.0] * 100}),
    "a zip file": b"PK\x03\x04" + bytes(200),
    "truncated in the header": safetensors_bytes({"head.weight": entry(0, 48)})[:30],
    "truncated in the data": safetensors_bytes({"a": entry(0, 48)}, bytes(40)),
    "trailing bytes": safetensors_bytes({"a": entry(0, 48)}, bytes(50)),
    "header of 2**63 bytes": struct.pack("<Q", 1 << 63) + b"{}",
    "header of 2**64 - 1 bytes": b"\xff" * 8 + b"{}",
    "header of 200 MB claimed": struct.pack("<Q", 200_000_000) + b"{}" + bytes(100),
    "header of 1 byte": struct.pack("<Q", 1) + b"{" + bytes(100),
    "header no JSON": safetensors_bytes(b"not json"),
    "header no UTF-8": safetensors_bytes(b'{"\xff": 1}'),
    "header no object": safetensors_bytes([1, 2]),
    "header nested": safetensors_bytes(b"[" * 90_000),
    "overlap": safetensors_bytes({"a": entry(0, 48), "b": entry(40, 88)}, bytes(88)),
    "gap": safetensors_bytes({"a": entry(0, 48), "b": entry(50, 98)}, bytes(98)),
    "negative offset": safetensors_bytes({"a": entry(-48, 0, [24])}, bytes(48)),
    "offsets reversed": safetensors_bytes({"a": entry(48, 0, [24])}, bytes(48)),
    "offsets beyond": safetensors_bytes({"a": entry(0, 1 << 40, [1 << 39])}, bytes(48)),
    "shape overflow": safetensors_bytes({"a": entry(0, 48, [1 << 62, 1 << 62])}, bytes(48)),
    "negative shape": safetensors_bytes({"a": entry(0, 48, [-24])}, bytes(48)),
    "shape other than data": safetensors_bytes({"a": entry(0, 48, [23])}, bytes(48)),
    "unknown type": safetensors_bytes({"a": entry(0, 48, dtype="PICKLE")}, bytes(48)),
    "no offsets": safetensors_bytes({"a": {"dtype": "F16", "shape": [24]}}, bytes(48)),
    "doubled name": safetensors_bytes(
        b'{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}',
        bytes(4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_weight_files_are_refused(folder: Path, case: str) -> None:
    """Correctly pinned, so that the file itself is what is refused."""
    replace_weights(folder, MALFORMED[case])

    with pytest.raises(BadWeightFile):
        load(folder)


def test_a_header_beyond_the_limit_is_refused(folder: Path) -> None:
    """Well-formed, with a megabyte of metadata."""
    header = {"__metadata__": {"x": "y" * (1 << 20)}, "a": entry(0, 4)}
    replace_weights(folder, safetensors_bytes(header, bytes(4)))

    with pytest.raises(BadWeightFile, match="header"):
        load(folder)


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200
)
@given(data=st.data())
def test_no_damage_raises_anything_but_an_artifact_error(folder: Path, data: st.DataObject) -> None:
    """Flip, cut or insert bytes anywhere in a correctly pinned file."""
    original = folder.parent / "original"
    if not original.exists():
        shutil.copyfile(folder / WEIGHTS, original)
    raw = bytearray(original.read_bytes())
    position = data.draw(st.integers(0, len(raw) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "insert"])):
        case "flip":
            raw[position] ^= data.draw(st.integers(1, 255))
        case "cut":
            del raw[position:]
        case _:
            raw[position:position] = data.draw(st.binary(min_size=1, max_size=9))
    replace_weights(folder, bytes(raw))

    try:
        load(folder)
    except ArtifactError as error:
        assert "\n" not in str(error)  # noqa: PT017 - a valid change is fine, too


# --- tensors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pet", PETS)
def test_each_missing_tensor_is_told(tmp_path: Path, pet: str) -> None:
    """One by one, head included."""
    folder = write(tmp_path / "a", trained_level(PETS[pet])).folder
    raw = (folder / WEIGHTS).read_bytes()
    for name in safetensors.numpy.load(raw):
        (folder / WEIGHTS).write_bytes(raw)
        change_tensors(folder, lambda tensors, name=name: tensors.pop(name))  # type: ignore[misc]

        with pytest.raises(MissingTensor, match=name):
            load(folder)


@pytest.mark.parametrize(
    "name",
    [
        "layers.2.query.lora_a",
        "layers.0.pooler.lora_a",
        "layers.0.query.bias",
        "__proto__",
        "x" * 9000,
    ],
)
def test_a_foreign_tensor_is_told(folder: Path, name: str) -> None:
    """A layer too many, a site that is none, another kind's tensor; a long name is cut."""
    change_tensors(folder, lambda tensors: tensors.update({name: np.zeros(8, np.float16)}))

    with pytest.raises(UnexpectedTensor) as caught:
        load(folder)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("pet", PETS)
def test_each_wrong_shape_is_told(tmp_path: Path, pet: str) -> None:
    """One longer, transposed, flattened: never reshaped silently."""
    folder = write(tmp_path / "a", trained_level(PETS[pet])).folder
    raw = (folder / WEIGHTS).read_bytes()
    for name, values in safetensors.numpy.load(raw).items():
        changes = [np.stack([values, values])]
        if values.ndim == 2:
            changes += [values.T.copy(), values.ravel()]
        for changed in changes:
            if changed.shape == values.shape:
                continue
            (folder / WEIGHTS).write_bytes(raw)
            change_tensors(folder, lambda t, n=name, c=changed: t.update({n: c}))  # type: ignore[misc]

            with pytest.raises(TensorShapeMismatch, match=name):
                load(folder)


@pytest.mark.parametrize("num_labels", [2, 4])
def test_a_head_with_other_labels_is_told(folder: Path, num_labels: int) -> None:
    """The description names three."""
    change_tensors(
        folder, lambda tensors: tensors.update({"head.bias": np.zeros(num_labels, np.float16)})
    )

    with pytest.raises(TensorShapeMismatch, match=r"head\.bias"):
        load(folder)


@pytest.mark.parametrize(
    "dtype", [np.float64, np.int8, np.int64, np.uint8, np.bool_, np.uint16, np.complex64]
)
def test_a_wrong_element_type_is_told(folder: Path, dtype: type[np.generic]) -> None:
    """Only float16 and float32 hold weights."""
    change_tensors(
        folder,
        lambda tensors: tensors.update({"head.bias": tensors["head.bias"].astype(dtype)}),
    )

    with pytest.raises(TensorTypeMismatch, match=r"head\.bias"):
        load(folder)


def test_bfloat16_is_told(folder: Path) -> None:
    """Numpy has no such type: it must not become something else."""
    raw = (folder / WEIGHTS).read_bytes().replace(b'"dtype":"F16"', b'"dtype":"BF16"', 1)
    size = struct.unpack("<Q", raw[:8])[0]
    header = raw[8 : 8 + size + 1].rstrip(b" ")
    replace_weights(folder, safetensors_bytes(header, raw[8 + size + 1 :]))

    with pytest.raises((TensorTypeMismatch, BadWeightFile)):
        load(folder)


@pytest.mark.parametrize("pet", [pet for pet in PETS if pet != "mask"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_each_value_that_is_not_finite_is_told(tmp_path: Path, pet: str, value: float) -> None:
    """Safetensors loads them without a word."""
    folder = write(tmp_path / "a", trained_level(PETS[pet], density=0.3)).folder
    raw = (folder / WEIGHTS).read_bytes()
    for name, values in safetensors.numpy.load(raw).items():
        if values.dtype != np.float16 or not values.size:
            continue
        changed = values.copy()
        changed.flat[-1] = value
        (folder / WEIGHTS).write_bytes(raw)
        change_tensors(folder, lambda t, n=name, c=changed: t.update({n: c}))  # type: ignore[misc]

        with pytest.raises(NonFiniteWeights, match=name):
            load(folder)


@pytest.mark.parametrize("pet", ["mask", "diff"])
@pytest.mark.parametrize(
    "code",
    [
        [64],
        [255, 0],
        [63, 0],
        [0] * 64 + [255],
        [0, 255],
        [0] * 65,
        [0] * 64 + [0, 0],
    ],
    ids=lambda code: f"{len(code)} bytes, last {code[-1]}",
)
def test_damaged_positions_are_told(tmp_path: Path, pet: str, code: list[int]) -> None:
    """Beyond the 64 weights of an 8 x 8 matrix, or cut within a gap, or too many."""
    folder = write(tmp_path / "a", trained_level(PETS[pet])).folder
    name = f"layers.1.value.{pet}_gaps"
    change_tensors(folder, lambda tensors: tensors.update({name: np.array(code, np.uint8)}))

    with pytest.raises((BadIndices, TensorShapeMismatch), match=r"layers\.1\.value"):
        load(folder)


def test_positions_and_values_of_different_number_are_told(tmp_path: Path) -> None:
    """A diff with one value too few would shift all others."""
    folder = write(tmp_path / "a", trained_level(PETS["diff"], density=0.3)).folder
    name = "layers.0.key.diff_values"
    change_tensors(folder, lambda tensors: tensors.update({name: tensors[name][:-1].copy()}))

    with pytest.raises(TensorShapeMismatch, match="positions and"):
        load(folder)


# --- the backbone ------------------------------------------------------------------------------

BIGGER = BackboneShape(2, 16, 2, 20, 50, 32)
DEEPER = BackboneShape(3, 8, 2, 20, 50, 32)
SHORTER = BackboneShape(2, 8, 2, 20, 50, 31)
NARROWER = BackboneShape(2, 1, 1, 20, 50, 32)


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        (BIGGER, TensorShapeMismatch),
        (DEEPER, MissingTensor),
        (SHORTER, TooManyTokens),
        (NARROWER, RankOutOfRange),
    ],
)
def test_another_backbone_is_told(
    folder: Path, shape: BackboneShape, error: type[ArtifactError]
) -> None:
    """Wider, deeper, with fewer positions, narrower than the rank."""
    with pytest.raises(error):
        open_artifact(folder).load_level(0, shape)


def test_other_weights_of_the_backbone_are_told(folder: Path) -> None:
    """Same shape, another model: answers would be nonsense."""
    with pytest.raises(BackboneMismatch, match="tiny"):
        open_artifact(folder).load_level(0, SHAPE, backbone_digest="sha256:" + "0" * 64)


def test_an_unknown_backbone_is_told(folder: Path) -> None:
    """With the command that fetches it."""
    with pytest.raises(BackboneUnknown, match="petstream models fetch tiny"):
        open_artifact(folder).validate({})


def test_an_absent_level_is_told(folder: Path) -> None:
    """The task has level 0 only."""
    with pytest.raises(LevelNotFound):
        open_artifact(folder).load_level(1, SHAPE)


def test_a_description_that_is_no_json_is_told(folder: Path) -> None:
    """The whole list of such faults is in test_description."""
    (folder / "task.json").write_bytes(pickle.dumps({"format": 1}))

    with pytest.raises(BadDescription):
        open_artifact(folder)


def test_reading_leaves_no_file_open(folder: Path, tmp_path: Path) -> None:
    """Also when it fails, at every place where it can."""
    store = tmp_path / "store"
    store.mkdir()
    (store / "weather").symlink_to(folder)
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    before = len(os.listdir("/dev/fd"))

    for base, inner in [
        (folder, ()),
        (folder, ("task.json",)),
        (store, ("weather",)),
        (store, ("nothing", "1")),
    ]:
        with pytest.raises(ArtifactError):
            open_artifact(base, inner).validate(SHAPES)

    assert len(os.listdir("/dev/fd")) == before
