"""`petstream train` and `petstream calibrate`: a task from rows to a fitted cascade, and errors."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from petstream.commands import calibrate, train
from petstream.settings import load_settings
from tasks.artifact import open_artifact
from tasks.artifact_writer import replace_cascade
from tasks.pets.kinds import PET_KINDS
from tasks.training.injection import TRAINABLE
from tests.workers.stored_tasks import write_bare_embedding
from workers.backbone_store import find

SAMPLE = Path(__file__).parents[2] / "examples" / "tasks" / "sms_spam" / "sample.jsonl"


def _train(*arguments: object) -> Result:
    return CliRunner().invoke(train.app, [str(argument) for argument in arguments])


def _calibrate(*arguments: object) -> Result:
    return CliRunner().invoke(calibrate.app, [str(argument) for argument in arguments])


def _message(result: Result) -> str:
    lines = [line for line in result.output.splitlines() if line]
    assert len(lines) == 1, result.output
    assert lines[0].startswith("petstream: ")
    return lines[0]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Real rows, few enough to train on in seconds."""
    lines = SAMPLE.read_text(encoding="utf-8").splitlines(keepends=True)
    short = [line for line in lines if len(line) < 120][:60]
    spam = [line for line in lines if '"spam"' in line]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(short + spam), encoding="utf-8")
    return path


@pytest.mark.slow
def test_two_levels_and_a_cascade(rows: Path, tmp_path: Path) -> None:
    """Train the small level, add the large one, calibrate: one valid artifact, a new digest."""
    out = tmp_path / "spam"
    common = ["--data", rows, "--out", out, "--epochs", 1, "--threads", 1, "--json"]

    small = _train("--kind", "bitfit", "--backbone", "minilm-l3", "--test", rows, *common)
    large = _train(
        *("--kind", "lora", "--backbone", "minilm-l6", "--rank", 4),
        *("--level", 1, "--add-level", *common),
    )
    before = open_artifact(out).digest
    fitted = _calibrate(out, "--data", rows, "--threads", 1, "--json")

    assert (small.exit_code, large.exit_code, fitted.exit_code) == (0, 0, 0), large.output
    report = json.loads(small.stdout)
    assert report["test_rows"] > report["validation_rows"] > 0
    assert set(report["test_linear_probe"]) == {"accuracy"}
    description = open_artifact(out).description
    assert [level.pet.kind for level in description.levels] == ["bitfit", "lora"]
    assert set(json.loads((out / "report.json").read_text())) == {"level-0", "level-1"}
    cascade = json.loads(fitted.stdout)
    assert cascade["digest"] == open_artifact(out).digest != before
    assert description.cascade is not None
    assert description.cascade.threshold == cascade["threshold"]
    assert 0 <= cascade["escalated_share"] <= 1
    assert [level["level"] for level in cascade["levels"]] == [0, 1]


BASE = ("--kind", "ia3", "--backbone", "minilm-l3")


def test_a_missing_data_file(tmp_path: Path) -> None:
    """Exit 1, one line that names the file."""
    result = _train(*BASE, "--data", tmp_path / "no.jsonl", "--out", tmp_path / "out")

    assert result.exit_code == 1
    assert "no.jsonl" in _message(result)
    assert not (tmp_path / "out").exists()


def test_one_class(rows: Path, tmp_path: Path) -> None:
    """A file with one label teaches nothing."""
    path = tmp_path / "one.jsonl"
    lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"ham"' in line), encoding="utf-8")

    result = _train(*BASE, "--data", path, "--out", tmp_path / "out")

    assert result.exit_code == 1
    assert "needs at least 2" in _message(result)


def test_an_unknown_label_in_the_validation_rows(rows: Path, tmp_path: Path) -> None:
    """The row and the label are named."""
    path = tmp_path / "v.jsonl"
    path.write_text('{"text": "x", "label": "maybe"}\n')

    result = _train(*BASE, "--data", rows, "--validation", path, "--out", tmp_path / "out")

    assert result.exit_code == 1
    assert "v.jsonl, row 1: label 'maybe'" in _message(result)


def test_an_unknown_backbone(rows: Path, tmp_path: Path) -> None:
    """The message says what there is."""
    result = _train(
        *("--kind", "ia3", "--backbone", "nope", "--data", rows, "--out", tmp_path / "out")
    )

    assert result.exit_code == 1
    assert "no backbone 'nope'" in _message(result)


def test_a_backbone_that_was_not_fetched(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the command that fetches it."""
    monkeypatch.setenv("PETSTREAM_MODELS_DIR", str(tmp_path / "empty"))

    result = _train(*BASE, "--data", rows, "--out", tmp_path / "out")

    assert result.exit_code == 1
    assert "petstream models fetch minilm-l3" in _message(result)


def test_an_output_that_exists(rows: Path, tmp_path: Path) -> None:
    """Nothing is overwritten: wrong use, exit 2."""
    result = _train(*BASE, "--data", rows, "--out", tmp_path)

    assert result.exit_code == 2
    assert "is there already" in _message(result)


@pytest.fixture
def spam(tmp_path: Path) -> Path:
    """A copy of a demo task with two levels and a cascade."""
    return Path(shutil.copytree(SAMPLE.parent, tmp_path / "spam"))


@pytest.mark.parametrize("number", [0, 1])
def test_a_level_that_exists_is_not_replaced_unasked(rows: Path, spam: Path, number: int) -> None:
    """--add-level adds; level 0, the default, is not meant by who forgets --level."""
    before = open_artifact(spam).digest
    level = ("--level", number) if number else ()

    result = _train(*BASE, "--data", rows, "--out", spam, "--add-level", *level)

    assert result.exit_code == 2
    assert f"has a level {number}: give another --level, or --replace-level" in _message(result)
    assert open_artifact(spam).digest == before


def test_a_level_that_is_not_there_is_not_replaced(rows: Path, spam: Path) -> None:
    """--replace-level alone does not add."""
    result = _train(*BASE, "--data", rows, "--out", spam, "--replace-level", "--level", 2)

    assert result.exit_code == 2
    assert "has no level 2" in _message(result)


def test_a_level_is_replaced_and_the_cascade_dropped(rows: Path, spam: Path) -> None:
    """What was fitted for other levels is gone, and that is said."""
    before = open_artifact(spam).description
    assert before.cascade is not None

    result = _train(
        *BASE, "--data", rows, "--out", spam, "--replace-level", "--epochs", 0, "--threads", 1
    )

    after = open_artifact(spam).description
    assert result.exit_code == 0, result.output
    assert "cascade dropped: calibrate again with `petstream calibrate" in result.stderr
    assert [level.pet.kind for level in after.levels] == ["ia3", before.level(1).pet.kind]
    assert (after.name, after.source, after.cascade) == (before.name, before.source, None)


@pytest.mark.parametrize("option", ["--task", "--source", "--licence"])
def test_what_the_artifact_has_is_not_given_again(rows: Path, spam: Path, option: str) -> None:
    """Name, source and licence of an artifact stay: another is refused, not ignored."""
    replace_cascade(spam, None)

    result = _train(
        *BASE, "--data", rows, "--out", spam, "--add-level", "--level", 2, option, "other"
    )

    assert result.exit_code == 2
    assert option in _message(result)


def test_a_backbone_that_the_levels_workers_do_not_run(rows: Path, tmp_path: Path) -> None:
    """Trained as told, with a warning."""
    out = tmp_path / "out"
    common = ("--data", rows, "--out", out, "--epochs", 0, "--threads", 1)

    result = _train("--kind", "bitfit", "--backbone", "minilm-l3", "--level", 1, *common)

    assert result.exit_code == 0, result.output
    assert "warning: level 1 of out is on minilm-l3" in result.stderr
    assert "runs minilm-l6" in result.stderr


def test_the_recipe_is_the_callers(rows: Path, tmp_path: Path) -> None:
    """What the options name is what the report says was used."""
    out = tmp_path / "out"

    result = _train(
        *("--kind", "diff", "--backbone", "minilm-l3", "--data", rows, "--out", out),
        *("--epochs", 1, "--dense-epochs", 1, "--start-c", 7.5, "--kept-share", 0.01),
        *("--batch", 64, "--threads", 1),
    )

    assert result.exit_code == 0, result.output
    recipe = json.loads((out / "report.json").read_text())["level-0"]["recipe"]
    assert (recipe["epochs"], recipe["dense_epochs"]) == (1, 1)
    assert (recipe["start_c"], recipe["kept_share"]) == (7.5, 0.01)


def test_every_kind_with_a_recipe_can_be_trained() -> None:
    """The option's choices are the kinds that `inject` knows."""
    assert set(train.trainable_kinds()) == {
        name for name, kind in PET_KINDS.items() if kind in TRAINABLE
    }


def test_adding_a_level_to_nothing(rows: Path, tmp_path: Path) -> None:
    """--add-level needs an artifact: wrong use, exit 2."""
    result = _train(*BASE, "--data", rows, "--out", tmp_path / "out", "--add-level")

    assert result.exit_code == 2
    assert "no artifact" in _message(result)


@pytest.mark.parametrize(
    "option",
    [
        ("--epochs", "-1"),
        ("--rate", "0"),
        ("--start-c", "0"),
        ("--dense-epochs", "1"),
        ("--kind", "lora", "--rank", "0"),
    ],
)
def test_hyperparameters_out_of_range(rows: Path, tmp_path: Path, option: tuple[str, ...]) -> None:
    """Refused in one line before anything is trained."""
    result = _train(*BASE, "--data", rows, "--out", tmp_path / "out", *option)

    assert result.exit_code == 1
    assert not (tmp_path / "out").exists()
    _message(result)


def test_calibrating_no_artifact(rows: Path, tmp_path: Path) -> None:
    """Exit 1 and one line."""
    result = _calibrate(tmp_path, "--data", rows)

    assert result.exit_code == 1
    _message(result)


def test_calibrating_with_rows_of_another_task(tmp_path: Path) -> None:
    """Labels of another task are refused; the artifact stays as it is."""
    path = tmp_path / "other.jsonl"
    path.write_text('{"text": "x", "label": "weather"}\n')
    before = (SAMPLE.parent / "task.json").read_bytes()

    result = _calibrate(SAMPLE.parent, "--data", path)

    assert result.exit_code == 1
    assert "'weather' is not among the 2 labels" in _message(result)
    assert (SAMPLE.parent / "task.json").read_bytes() == before


def test_an_embedding_is_neither_trained_nor_calibrated(rows: Path, tmp_path: Path) -> None:
    """Nor does it get another level; each is one line that says where embeddings come from."""
    backbone = find("minilm-l3", load_settings().models_dir)
    folder = write_bare_embedding(tmp_path / "sentences", backbone).folder
    shared = ("--kind", "bitfit", "--backbone", "minilm-l3", "--data", rows)

    trained = _train(*shared, "--out", tmp_path / "out", "--label-kind", "embedding")
    added = _train(*shared, "--out", folder, "--level", 1, "--add-level")
    fitted = _calibrate(folder, "--data", rows)

    assert (trained.exit_code, added.exit_code, fitted.exit_code) == (1, 1, 1)
    assert "petstream tasks import" in _message(trained)
    assert "has one level" in _message(added)
    assert "petstream tasks import" in _message(fitted)
    assert not (tmp_path / "out").exists()
