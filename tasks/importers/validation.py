"""Other libraries' configurations, checked to be of the form that a parser reads."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from tasks.errors import BadCheckpoint

_M = TypeVar("_M", bound=BaseModel)


def validated(model: type[_M], document: object, where: str) -> _M:
    """Validate a document or a part of one.

    Args:
        model: The form.
        document: Parsed JSON; None for a file that is not there.
        where: Its name, for messages.

    Raises:
        BadCheckpoint: If it is not of the form.
    """
    if document is None:
        raise BadCheckpoint(f"the checkpoint has no {where}: it was not copied whole")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part)[:100] for part in (where, *first["loc"]))
        raise BadCheckpoint(
            f"{place}: {first['msg']}: the file is not as the library writes it"
        ) from error
