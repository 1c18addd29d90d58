"""Says when a task's level is on another backbone than the level's workers run."""

from petstream.output import warn
from workers.levels import LEVEL_BACKBONES


def warn_of_other_backbone(task: str, level: int, backbone: str) -> None:
    """Print one line on standard error unless the backbone is the level's own."""
    own = LEVEL_BACKBONES.get(level, backbone)
    if backbone != own:
        warn(
            f"level {level} of {task} is on {backbone}, and a worker of level {level} runs {own}: "
            f"start one with `petstream worker --level {level} --backbone {backbone}`, or train "
            f"the level on {own}"
        )
