"""What a decoded query must still satisfy, given the task it is for. Pure.

Form (types, ranges, sizes of fields) is the codec's matter; here it is what the fields mean.
"""

from collections.abc import Collection
from dataclasses import dataclass

from messages.errors import MessageError, Reason
from messages.task_event import TaskLevel, TaskRevision


@dataclass(frozen=True, slots=True)
class TextLimits:
    """Checked before tokenising, since tokenising costs in proportion."""

    max_chars: int = 8_192
    """Of text and pair together. Models read 512 tokens, some 2,500 characters; what is a little
    over is cut there, what is this far over is a mistake of the caller's. A text of this length
    takes the tokenizer up to 50 ms (Chinese characters)."""


def check_texts(
    text: str, text_pair: str | None, revision: TaskRevision, limits: TextLimits
) -> None:
    """Check that the task can read the texts.

    Raises:
        MessageError: EMPTY_TEXT, TEXT_TOO_LONG, TEXT_PAIR_UNEXPECTED or MISSING_FIELD.
    """
    if text_pair is not None and not revision.takes_pair:
        raise MessageError(
            Reason.TEXT_PAIR_UNEXPECTED, f"task {revision.reference.name} takes one text"
        )
    if text_pair is None and revision.takes_pair:
        raise MessageError(
            Reason.MISSING_FIELD, f"task {revision.reference.name} takes text and text_pair"
        )
    num_chars = len(text) + len(text_pair or "")
    if num_chars > limits.max_chars:
        raise MessageError(
            Reason.TEXT_TOO_LONG,
            f"{num_chars} characters, {limits.max_chars} are accepted; shorten the text",
        )
    if not text.strip() or (text_pair is not None and not text_pair.strip()):
        raise MessageError(Reason.EMPTY_TEXT, "the text is empty")


def starting_level(
    revision: TaskRevision, forced_level: int | None, served_levels: Collection[int]
) -> TaskLevel:
    """Return the level that answers first: the forced one, else the task's first that is served.

    Raises:
        MessageError: LEVEL_UNAVAILABLE.
    """
    for level in revision.levels:
        if level.level in served_levels and forced_level in (None, level.level):
            return level
    wanted = "any level it has" if forced_level is None else f"level {forced_level}"
    raise MessageError(
        Reason.LEVEL_UNAVAILABLE, f"task {revision.reference.name} is not served at {wanted}"
    )


def check_deadline(deadline: int | None, now_ms: float) -> None:
    """Check that there is time left.

    Raises:
        MessageError: DEADLINE_PAST.
    """
    if deadline is not None and deadline <= now_ms:
        raise MessageError(
            Reason.DEADLINE_PAST, f"expired {now_ms - deadline:.0f} ms before it was scheduled"
        )
