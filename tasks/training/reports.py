"""`report.json` beside `task.json`: what a training run measured, level by level.

It is not part of the artifact: the task's digest does not depend on it and no service reads it.
"""

import json
from pathlib import Path
from typing import Any

REPORT_FILE = "report.json"


def write_report(folder: Path, level: int, report: dict[str, Any]) -> None:
    """Put a level's report into the folder's `report.json`, in place of an older one."""
    reports = read_reports(folder)
    reports[f"level-{level}"] = report
    text = json.dumps(dict(sorted(reports.items())), indent=2, ensure_ascii=False)
    (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")


def read_reports(folder: Path) -> dict[str, Any]:
    """Return the reports of a folder, by level; empty where there is none that can be read."""
    try:
        found = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
