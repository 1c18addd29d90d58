"""Very many real tasks, made cheaply: a task under further names.

Each has a description and a digest of its own. Its weight files are those of the first under
further names (hard links), so that 10,000 tasks take 50 MB and not gigabytes.
"""

import os
from pathlib import Path

from tasks.artifact import DESCRIPTION_FILE, Artifact
from tasks.description import TaskDescription


def copy_under(name: str, model: Artifact, root: Path) -> Artifact:
    """Put a task into a store under another name, as its first revision.

    Args:
        name: Not in the store yet.
        model: A revision 1, on the store's file system.
        root: Of the store.
    """
    inner = (name, "1")
    folder = root.joinpath(*inner)
    folder.mkdir(parents=True)
    description = TaskDescription(**(dict(model.description) | {"name": name}))
    (folder / DESCRIPTION_FILE).write_bytes(description.to_bytes())
    for described in description.levels:
        os.link(model.folder / described.file, folder / described.file)
    return Artifact(root, inner, description, description.digest())
