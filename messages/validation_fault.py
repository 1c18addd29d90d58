"""What a failed validation is told of in one line: where its first fault is, and which."""

from pydantic import ValidationError


def first_fault(error: ValidationError, whole: str) -> str:
    """Return `place: fault`.

    Args:
        error: With at least one fault, as all have.
        whole: Stands for the place where that is no part of what was validated, but all of it.
    """
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or whole
    return f"{where}: {first['msg']}"
