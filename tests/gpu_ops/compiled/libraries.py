"""Libraries of the compiled operators for tests, built once into the user's cache."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

from gpu_ops.compiled.build import GENERIC, build, compiler
from gpu_ops.compiled.library import Library, runnable_variants
from tests.file_lock import locked

CACHE = user_cache_path("petstream") / "compiled-operators"
SANITIZERS = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
WIDE = ("-DVECTOR_LANES=16",)
"""Vectors as wide as AVX-512's, which the compiler splits where the processor has none."""

FORMS: dict[str, tuple[str, Sequence[str]]] = {
    **{variant: (variant, ()) for variant in runnable_variants()},
    **{variant: (variant, ()) for variant in GENERIC},
    "generic-wide": ("generic", WIDE),
}
"""Name -> variant, flags besides. Every variant that this machine can run."""


@cache
def built(form: str, is_sanitized: bool = False) -> Library:
    """Return one form, compiled where it was not: by one process, for which others wait."""
    command = compiler()
    assert command is not None
    variant, flags = FORMS[form]
    more = (*flags, *(SANITIZERS if is_sanitized else ()))
    own = folder(form, is_sanitized)
    with locked(own / "lock"):
        return Library(build(command, variant, own, more))


def folder(form: str, is_sanitized: bool = False) -> Path:
    """Return where one form's libraries lie: flags besides are not part of their digest."""
    return CACHE / (f"{form}-sanitized" if is_sanitized else form)
