"""An imported checkpoint as people and programs are shown it."""

import json
from dataclasses import asdict
from typing import Any

from rich.table import Table

from petstream.output import console, warn
from tasks.artifact import Artifact
from tasks.importers.importing import LIBRARIES, Import


def import_report(found: Import, artifact: Artifact | None, revision: int | None) -> dict[str, Any]:
    """Return an import as a JSON document; the last two are None for a dry run."""
    imported, level = found.imported, found.level
    return {
        "origin": imported.origin,
        "library_version": imported.library_version,
        "base_model": imported.base_model,
        "backbone": level.backbone.model_dump(),
        "level": level.level,
        "kind": found.kind,
        "labels": list(found.labels),
        "embedding": None if found.embedding is None else found.embedding.model_dump(),
        "pet": level.pet.model_dump(mode="json", exclude_none=True),
        "num_parameters": sum(int(values.size) for values in level.tensors.values()),
        "head": None if level.head is None else level.head.model_dump(exclude_none=True),
        "pooling": level.pooling,
        "max_tokens": level.max_tokens,
        "dtype": found.dtype,
        "taken": sorted(imported.used_keys),
        "findings": [asdict(finding) for finding in found.findings],
        "folder": None if artifact is None else str(artifact.folder),
        "digest": None if artifact is None else artifact.digest,
        "revision": revision,
    }


def show_import(found: Import, name: str) -> None:
    """Print an import as a table, its notes below, its warnings on standard error."""
    report = import_report(found, None, None)
    table = Table("what", "as", show_header=False)
    hidden = report["head"]
    rows = {
        "task": f"{name}: {found.kind}, {_outputs(found)}",
        "from": f"{LIBRARIES[found.imported.origin]} {report['library_version'] or ''}".strip(),
        "trained on": report["base_model"] or "not said",
        "backbone": f"{report['backbone']['name']} {report['backbone']['digest'][:19]}",
        "PET": json.dumps(report["pet"]),
        "parameters": f"{report['num_parameters']:,} as {found.dtype}",
        "head": f"{report['pooling']}, {'one layer' if hidden is None else json.dumps(hidden)}",
        "tensors taken": str(len(report["taken"])),
    }
    for what, value in rows.items():
        table.add_row(what, value)
    console.print(table)
    for finding in found.findings:
        if finding.severity == "warning":
            warn(f"{finding.code}: {finding.message}")
        else:
            console.print(f"note: {finding.message}", soft_wrap=True, highlight=False)


def _outputs(found: Import) -> str:
    if found.embedding is None:
        return f"{len(found.labels)} labels ({_some(found.labels)})"
    length = "of length 1" if found.embedding.normalise else "of any length"
    return f"{found.embedding.dimensions} dimensions, vectors {length}"


def _some(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
