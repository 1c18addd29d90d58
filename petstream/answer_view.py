"""Answers for people and for scripts."""

import json
from collections.abc import Sequence
from typing import Any

from messages.answer_codec import encode_answer
from messages.errors import ErrorAnswer
from messages.reply import ReplyAddress
from producers.ticket import Answer

_NUM_SHOWN = 4
_AS_JSON = ReplyAddress(key=None, encoding="json")


def wire_form(answer: Answer) -> dict[str, Any]:
    """Return the answer as it stands on the wire in JSON."""
    document: dict[str, Any] = json.loads(encode_answer(answer, _AS_JSON).value)
    return document


def shortened(vector: Sequence[float]) -> str:
    """Return a vector's first numbers and how many there are."""
    shown = ", ".join(f"{number:.4f}" for number in vector[:_NUM_SHOWN])
    return f"[{shown}{', ...' if len(vector) > _NUM_SHOWN else ''}] of {len(vector)} dimensions"


def one_line(answer: Answer) -> str:
    """Say what was answered, in one line."""
    if isinstance(answer, ErrorAnswer):
        return f"error {answer.reason.value}: {answer.message}"
    if answer.value is not None:
        said = f"{answer.value:.4g}"
    elif answer.embedding is not None:
        said = shortened(answer.embedding)
    elif answer.tags is not None:
        said = ", ".join(f"{label} [{first}:{end}]" for first, end, label in answer.tags)
    else:
        scored = zip(answer.labels, answer.scores, strict=True)
        said = ", ".join(f"{label} {score:.3f}" for label, score in scored)
    return f"{said or 'none'} (level {answer.level})"
