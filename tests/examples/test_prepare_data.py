"""The splits of the example tasks: no text that is trained on is asked, even where texts repeat."""

import json
import random
from itertools import combinations
from pathlib import Path

import pytest

from examples.prepare_data import TASKS, Row, Splits, prepare, text_key

EXAMPLES = Path(__file__).parents[2] / "examples"
SPLITS = ("train", "validation", "calibration", "test")


def _keys(rows: list[Row]) -> set[str]:
    return {text_key(row["text"]) for row in rows}


def _read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _prepared(name: str, data: Path, out: Path) -> Splits:
    prepare(data, out, [name])
    return {split: _read(out / name / f"{split}.jsonl") for split in (*SPLITS, "sample")}


def _repeated(num_distinct: int, num_rows: int, seed: int = 1) -> list[str]:
    """Texts of which many occur several times, some of them in other letters."""
    rng = random.Random(seed)
    texts = [f"text number {rng.randrange(num_distinct)}" for _ in range(num_rows)]
    return [text.upper() if rng.random() < 0.1 else text for text in texts]


def _write_sms_spam(data: Path) -> None:
    (data / "sms_spam").mkdir()
    lines = [f"{('ham', 'spam')[len(text) % 2]}\t{text}" for text in _repeated(3500, 6000)]
    (data / "sms_spam" / "SMSSpamCollection").write_text("\r\n".join(lines))


def _write_nlupp(data: Path) -> None:
    texts = iter(_repeated(1800, 4000))
    for domain in ("banking", "hotels"):
        (data / "nlupp" / domain).mkdir(parents=True)
        for fold in range(20):
            rows = [{"text": next(texts), "intents": [domain]} for _ in range(100)]
            (data / "nlupp" / domain / f"fold{fold}.json").write_text(json.dumps(rows))


def _write_snips(data: Path) -> None:
    for seed, (split, num_rows) in enumerate({"train": 1500, "valid": 300, "test": 600}.items()):
        folder = data / "snips" / split
        folder.mkdir(parents=True)
        texts = _repeated(3000, num_rows, seed)
        (folder / "seq.in").write_text("\n".join(texts) + "\n")
        (folder / "label").write_text("\n".join("ab"[len(text) % 2] for text in texts) + "\n")
        tags = ("O O B-number" for _ in texts)
        (folder / "seq.out").write_text(" \n".join(tags) + " \n")


@pytest.mark.parametrize("name", ["sms_spam", "nlupp"])
def test_a_text_is_in_one_split_of_ours(tmp_path: Path, name: str) -> None:
    """Where there are no public splits, no text is in two of ours, nor twice in one."""
    (_write_sms_spam if name == "sms_spam" else _write_nlupp)(tmp_path)

    splits = _prepared(name, tmp_path, tmp_path / "out")

    for split in SPLITS:
        assert len(_keys(splits[split])) == len(splits[split]) > 0
    for one, other in combinations(SPLITS, 2):
        assert not _keys(splits[one]) & _keys(splits[other])
    assert len(splits["sample"]) == 200
    assert _keys(splits["sample"]) <= _keys(splits["test"])


def test_a_sentence_of_both_domains_has_the_intents_of_both(tmp_path: Path) -> None:
    """Rows that are one text become one row."""
    _write_nlupp(tmp_path)

    splits = _prepared("nlupp", tmp_path, tmp_path / "out")

    assert any(row["labels"] == ["banking", "hotels"] for row in splits["train"])


def test_public_splits_stay_but_are_not_asked_or_calibrated_on(tmp_path: Path) -> None:
    """Test rows are as published and counted; sample and calibration rows stand nowhere else."""
    _write_snips(tmp_path)

    splits = _prepared("snips", tmp_path, tmp_path / "out")

    fitted = _keys(splits["train"]) | _keys(splits["validation"]) | _keys(splits["calibration"])
    assert len(splits["test"]) == 600
    assert not _keys(splits["sample"]) & fitted
    assert len(_keys(splits["sample"])) == len(splits["sample"]) == 200
    for split in ("train", "validation", "test"):
        assert not _keys(splits["calibration"]) & _keys(splits[split])
    counted = json.loads((tmp_path / "out" / "splits.json").read_text())["snips"]
    trained = _keys(splits["train"])
    assert counted["test_rows_in_train"] == sum(
        text_key(row["text"]) in trained for row in splits["test"]
    )
    assert counted["test_rows_in_train"] > 0


def test_slots_are_tagged_on_the_sentences_of_the_intents(tmp_path: Path) -> None:
    """`snips_slots` reads the folder of `snips`: the same splits, a tag for each word."""
    _write_snips(tmp_path)

    tagged = _prepared("snips_slots", tmp_path, tmp_path / "out")
    single = _prepared("snips", tmp_path, tmp_path / "out")

    for split in (*SPLITS, "sample"):
        assert [row["text"] for row in tagged[split]] == [row["text"] for row in single[split]]
        assert all(len(row["labels"]) == len(row["text"].split()) for row in tagged[split])


def test_words_of_a_conll_file_are_those_between_spaces(tmp_path: Path) -> None:
    """A no-break space in a word does not make it two; empty lines may hold a tab."""
    folder = tmp_path / "wnut17"
    folder.mkdir()
    sentence = "@{0}\tO\nlives\tO\nin\u00a0\tO\nNew\u00a0\tB-location\nYork\tI-location\n"
    for number, name in enumerate(
        ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")
    ):
        text = "\t\n".join(sentence.format(600 * number + row) for row in range(600))
        (folder / name).write_text(text, encoding="utf-8")

    splits = _prepared("wnut17", tmp_path, tmp_path / "out")

    assert splits["train"][0] == {
        "text": "@0 lives in New York",
        "labels": ["O", "O", "O", "B-location", "I-location"],
    }
    sizes = {split: len(rows) for split, rows in splits.items()}
    assert sizes == {
        "train": 600,
        "validation": 500,
        "calibration": 100,
        "test": 600,
        "sample": 200,
    }


def test_pairs_count_as_equal_when_both_texts_are(tmp_path: Path) -> None:
    """One sentence in several pairs is no repetition; a pair in two splits is."""
    folder = tmp_path / "stsb"
    folder.mkdir()
    rows = [f'"A man, {number}.",A man.,{number % 6}.0\n' for number in range(1200)]
    (folder / "stsb-en-train.csv").write_text("".join(rows[:700]))
    (folder / "stsb-en-dev.csv").write_text("".join(rows[100:1200]))

    splits = _prepared("stsb", tmp_path, tmp_path / "out")

    assert len(splits["train"]) == 200
    assert len(splits["test"]) == 600
    assert splits["train"][0].keys() == {"text", "text_pair", "value"}
    fitted = {row["text"] for split in ("train", "validation", "test") for row in splits[split]}
    assert len(splits["calibration"]) > 100
    assert not {row["text"] for row in splits["calibration"]} & fitted


def test_texts_that_the_backbones_read_alike_are_one() -> None:
    """Case and white space do not tell texts apart: the tokenizers lower them."""
    assert text_key("Call  ME\tnow ") == text_key("call me now")
    assert text_key("call me now!") != text_key("call me now")


def test_committed_samples_have_no_text_twice() -> None:
    """Each demo task has its 200 rows, and the committed counts are of every task.

    The rows of STS-B are not ours to give.
    """
    counts = json.loads((EXAMPLES / "splits.json").read_text())
    assert counts.keys() == {"seed", *TASKS}
    assert not (EXAMPLES / "tasks" / "stsb" / "sample.jsonl").exists()
    for name in TASKS.keys() - {"stsb"}:
        rows = _read(EXAMPLES / "tasks" / name / "sample.jsonl")

        assert len(_keys(rows)) == len(rows) == counts[name]["sample"]
