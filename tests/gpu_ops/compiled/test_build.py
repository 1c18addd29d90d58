"""Libraries are built where a compiler is, loaded where one fits, and missed by nobody."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_ops.compiled import build as build_module
from gpu_ops.compiled import library as library_module
from gpu_ops.compiled.build import CompilerFailed, build, compiler, library_path, variants
from gpu_ops.compiled.library import load, runnable_variants

ROOT = Path(__file__).parents[3]
needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


def run_build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the build of a copy of the folder, with nothing but the given environment."""
    copy = folder / "gpu_ops" / "compiled"
    ignored = shutil.ignore_patterns("build", "__pycache__")
    shutil.copytree(ROOT / "gpu_ops" / "compiled", copy, ignore=ignored)
    (folder / "gpu_ops" / "__init__.py").touch()
    return subprocess.run(
        [sys.executable, "-m", "gpu_ops.compiled.build"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("environment", [{"PATH": "/nowhere"}, {"CXX": "no-such-compiler"}])
def test_a_missing_compiler_is_no_error(tmp_path: Path, environment: dict[str, str]) -> None:
    """One line says so."""
    ended = run_build(tmp_path, **environment)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "no C++ compiler found: operators run by torch, which is slower"
    ]
    assert not (tmp_path / "gpu_ops" / "compiled" / "build").exists()


def test_a_compiler_that_fails_is_no_error(tmp_path: Path) -> None:
    """A line for each variant tells of its first error, and no library is left."""
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'x.cpp:1: error: no such language' >&2\nexit 1\n")
    broken.chmod(0o755)

    ended = run_build(tmp_path / "copy", PATH=os.environ["PATH"], CXX=str(broken))

    assert ended.returncode == 0, ended.stderr
    said = ended.stdout.splitlines()
    assert len(said) == len(variants())
    assert all("error: no such language" in line for line in said)
    assert list((tmp_path / "copy").rglob("*.so")) == []


def test_no_library_is_loaded_where_none_was_built(tmp_path: Path) -> None:
    """And none where one was built of other sources."""
    for variant in runnable_variants():
        stale = tmp_path / "0123456789abcdef" / f"{variant}.so"
        stale.parent.mkdir(exist_ok=True)
        stale.write_bytes(b"")

    assert load(tmp_path) is None


def test_sources_and_flags_name_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change of either is another folder."""
    changed = tmp_path / "vector.h"
    changed.write_text("// other\n")
    paths = {library_path("generic", tmp_path)}
    monkeypatch.setattr(build_module, "HEADERS", [changed])
    paths.add(library_path("generic", tmp_path))
    monkeypatch.setattr(build_module, "FLAGS", ("-O0",))
    paths.add(library_path("generic", tmp_path))

    assert len(paths) == 3


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (set(), []),
        ({"avx2", "fma"}, []),
        (library_module._NEEDED["x86-64-v3"], ["x86-64-v3"]),
        (
            library_module._NEEDED["x86-64-v3"] | library_module._NEEDED["x86-64-v4"],
            ["x86-64-v4", "x86-64-v3"],
        ),
        (library_module._NEEDED["x86-64-v4"], []),
    ],
)
def test_a_processor_runs_what_it_has_all_instructions_of(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], expected: list[str]
) -> None:
    """The widest first."""
    monkeypatch.setattr(library_module, "_processor_flags", lambda: flags)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")

    assert runnable_variants() == expected


@needs_compiler
def test_what_the_compiler_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first error, not all of its output."""
    source = tmp_path / "broken.cpp"
    source.write_text("int broken( { return undeclared; }\n")
    monkeypatch.setattr(build_module, "SOURCES", [source])
    command = compiler()
    assert command is not None

    with pytest.raises(CompilerFailed, match=r"broken\.cpp:1"):
        build(command, "generic", tmp_path)


@needs_compiler
def test_more_flags_overrule_the_builds_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stand behind them: the sanitizers' level of optimisation is the one that is taken."""
    source = tmp_path / "level.cpp"
    source.write_text("#ifdef __OPTIMIZE__\n#error optimised\n#endif\n")
    monkeypatch.setattr(build_module, "SOURCES", [source])
    command = compiler()
    assert command is not None

    assert build(command, "generic", tmp_path / "plain", ["-O0"]).is_file()
    with pytest.raises(CompilerFailed, match="optimised"):
        build(command, "generic", tmp_path / "optimised")


@needs_compiler
@pytest.mark.slow
def test_every_variant_of_this_kind_of_processor_compiles(tmp_path: Path) -> None:
    """Also one that this processor cannot run; the loader then takes the widest that it can."""
    ended = run_build(tmp_path, PATH=os.environ["PATH"])

    built = tmp_path / "gpu_ops" / "compiled" / "build"
    assert ended.returncode == 0, ended.stderr
    assert {path.stem for path in built.rglob("*.so")} == variants().keys()
    assert (load(built) is None) == (runnable_variants() == [])
