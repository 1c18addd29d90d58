"""`examples/train_tasks.py` leaves what a service needs: both levels, a cascade, a sample."""

import json
from pathlib import Path

import pytest

from examples.train_tasks import EXAMPLE_TASKS, main
from tasks.artifact import open_artifact
from tasks.training.recipes import recipe_for

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_a_task_is_trained_and_calibrated(tmp_path: Path) -> None:
    """From prepared rows to a calibrated artifact, by one command; a second run replaces it."""
    rows, out = tmp_path / "rows" / "sms_spam", tmp_path / "tasks"
    rows.mkdir(parents=True)
    sample = (EXAMPLES / "tasks" / "sms_spam" / "sample.jsonl").read_text(encoding="utf-8")
    lines = sorted(sample.splitlines(keepends=True), key=len)
    few = [line for line in lines if '"ham"' in line][:20]
    few += [line for line in lines if '"spam"' in line][:5]
    for split in ("train", "validation", "calibration", "sample"):
        (rows / f"{split}.jsonl").write_text("".join(few), encoding="utf-8")
    command = ("--task", "sms_spam", "--rows", tmp_path / "rows", "--out", out)

    for _ in range(2):
        main([str(word) for word in (*command, "--epochs", 0, "--threads", 1)])

    description = open_artifact(out / "sms_spam").description
    assert [level.level for level in description.levels] == [0, 1]
    assert description.cascade is not None
    assert description.cascade.fitted_on_rows == len(few)
    assert (out / "sms_spam" / "sample.jsonl").read_bytes() == (rows / "sample.jsonl").read_bytes()
    reports = json.loads((out / "sms_spam" / "report.json").read_text())
    assert reports["level-1"]["recipe"]["epochs"] == 0


@pytest.mark.parametrize("name", EXAMPLE_TASKS)
def test_the_committed_tasks_are_those_of_the_recipes(name: str) -> None:
    """What was trained with what stands beside the weights is what the script would do again."""
    task = EXAMPLE_TASKS[name]
    description = open_artifact(EXAMPLES / "tasks" / name).description
    reports = json.loads((EXAMPLES / "tasks" / name / "report.json").read_text())

    assert description.cascade is not None
    for level in description.levels:
        assert level.pet == task.pet
        recipe = recipe_for(task.pet, **task.recipe)
        found = reports[f"level-{level.level}"]["recipe"]
        assert {field: getattr(recipe, field) for field in found} == found
