"""Prints the part of the hashed lock that an image needs.

    python select_requirements.py --extra worker > worker.txt
    python select_requirements.py --package uv > tools.txt

The lock holds everything, developers' tools included. This takes the packages that
`pyproject.toml` names and, by the lock's own `# via` notes, all that they need, each with its
hashes: one lock, nothing resolved anew. That the part is complete is the installer's check: with
`--require-hashes` pip refuses a requirement that is missing.

Standard library alone: it runs before anything is installed.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """One package of the lock."""

    name: str
    text: str
    """Its lines, hashes included."""
    needed_by: frozenset[str]


def read_lock(text: str) -> list[LockedPackage]:
    """Split a lock that `uv pip compile` wrote into its packages."""
    blocks = re.split(r"^(?=[^\s#])", text, flags=re.MULTILINE)[1:]
    return [_package(block) for block in blocks]


def names_of(requirements: Iterable[str]) -> set[str]:
    """Return the normalised names of requirements such as `torch>=2 ; sys_platform == 'linux'`."""
    return {
        _normalise(re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0])
        for requirement in requirements
    }


def select(
    packages: Sequence[LockedPackage], roots: set[str], without: Sequence[str] = ()
) -> list[LockedPackage]:
    """Return the packages named and all that they need, in the lock's order.

    Args:
        packages: The lock.
        roots: Names that are wanted.
        without: Shell patterns of names to leave out. What only they need stays in.

    Raises:
        LookupError: If the lock lacks one of the roots.
    """
    missing = roots - {package.name for package in packages}
    if missing:
        raise LookupError(f"the lock lacks {', '.join(sorted(missing))}: renew it with `make lock`")
    chosen = set(roots)
    while True:
        grown = chosen | {p.name for p in packages if p.needed_by & chosen}
        if grown == chosen:
            break
        chosen = grown
    return [
        package
        for package in packages
        if package.name in chosen and not any(fnmatch(package.name, p) for p in without)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the part that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lock", type=Path, default=Path("requirements.lock"))
    parser.add_argument("--pyproject", type=Path, default=Path("pyproject.toml"))
    parser.add_argument("--extra", action="append", default=[], help="the project with this extra")
    parser.add_argument("--package", action="append", default=[], help="this, not the project")
    parser.add_argument("--without", action="append", default=[], help="pattern of names left out")
    options = parser.parse_args(arguments)
    project = tomllib.loads(options.pyproject.read_text())["project"]
    if options.package:
        roots = names_of(options.package)
    else:
        wanted = list(project["dependencies"])
        for extra in options.extra:
            wanted += project["optional-dependencies"][extra]
        roots = names_of(wanted)
    for package in select(read_lock(options.lock.read_text()), roots, options.without):
        sys.stdout.write(package.text)
    return 0


def _package(block: str) -> LockedPackage:
    name = _normalise(block.partition("==")[0])
    # "# via torch", or "# via" and one indented name per line.
    notes = re.findall(r"^ +#(?: via)? +(\S+)", block, flags=re.MULTILINE)
    needed_by = frozenset(_normalise(note) for note in notes if note != "via")
    return LockedPackage(name, block, needed_by)


def _normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


if __name__ == "__main__":
    raise SystemExit(main())
