"""Turns the public data sets of the example tasks into labelled rows.

    PETSTREAM_DATA=/path/to/data python examples/prepare_data.py --out /tmp/petstream-data

Each task gets `train`, `validation` (chooses the epoch), `calibration` (fits the cascade), `test`
and `sample.jsonl` (what the demo asks and checks). Public splits are kept where there are any; what
is split here is split by SEED, after sorting nothing: the order of the public files counts.

Public data sets repeat texts, also across their splits. Where the splits are ours, a text is one
row. Where they are public, training, validation and test rows stay as they are published, but no
calibration row stands in another split, and no sample row in any that was trained or fitted on.
`splits.json` says how many rows went where, and how many test rows are in `train` too.
"""

import argparse
import csv
import json
import os
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

SEED = 20260101
NUM_SAMPLE_ROWS = 200
Row = dict[str, Any]
Splits = dict[str, list[Row]]


def clinc150(source: Path) -> Splits:
    """150 in-scope intents; out-of-scope rows are left out."""
    data = json.loads((source / "data_full.json").read_text(encoding="utf-8"))
    rows = {name: [_single(text, label) for text, label in data[name]] for name in data}
    validation, calibration = _cut(rows["val"], 1000)
    return _splits(rows["train"], validation, calibration, rows["test"])


def banking77(source: Path) -> Splits:
    """77 intents; validation and calibration rows come out of the public training rows."""
    public = [_read_categories(source / f"{name}.csv") for name in ("train", "test")]
    validation, rest = _cut(public[0], 500)
    calibration, train = _cut(rest, 1000)
    return _splits(train, validation, calibration, public[1])


def hwu64(source: Path) -> Splits:
    """64 intents; the public validation rows calibrate."""
    train = _read_parallel(source / "train")
    validation, train = _cut(train, 500)
    return _splits(
        train, validation, _read_parallel(source / "valid"), _read_parallel(source / "test")
    )


def snips(source: Path) -> Splits:
    """7 intents; the public validation rows calibrate."""
    train = _read_parallel(source / "train")
    validation, train = _cut(train, 700)
    return _splits(
        train, validation, _read_parallel(source / "valid"), _read_parallel(source / "test")
    )


def snips_slots(source: Path) -> Splits:
    """39 slots as BIO tags, of the same sentences and splits as `snips`."""
    train = _read_tagged(source / "train")
    validation, train = _cut(train, 700)
    return _splits(train, validation, _read_tagged(source / "valid"), _read_tagged(source / "test"))


def wnut17(source: Path) -> Splits:
    """6 kinds of emerging entities as BIO tags.

    Training rows are tweets, test rows posts of other sites: the public development rows, of a
    third site, choose the epoch and calibrate.
    """
    names = ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")
    train, development, test = (_read_conll(source / name) for name in names)
    validation, calibration = _cut(development, 500)
    return _splits(train, validation, calibration, test)


def stsb(source: Path) -> Splits:
    """How alike two sentences are, 0 to 5; the public test rows are not at hand.

    The public development rows calibrate and test.
    """
    validation, train = _cut(_read_scored(source / "stsb-en-train.csv"), 500)
    calibration, test = _cut(_read_scored(source / "stsb-en-dev.csv"), 500)
    return _splits(train, validation, calibration, test)


def sms_spam(source: Path) -> Splits:
    """Ham and spam; there is no public split, so all are ours, of the first row of each text."""
    text = (source / "SMSSpamCollection").read_text(encoding="utf-8")
    rows: dict[str, Row] = {}
    for line in text.splitlines():
        label, _, message = line.partition("\t")
        if message.strip():
            rows.setdefault(text_key(message), _single(message.strip(), label))
    test, rest = _cut(list(rows.values()), 1115)
    calibration, rest = _cut(rest, 557)
    validation, train = _cut(rest, 400)
    return _splits(train, validation, calibration, test)


def nlupp(source: Path) -> Splits:
    """62 intents, any number of them for a text; all folds of both domains, split by us."""
    rows: dict[str, Row] = {}
    for domain in ("banking", "hotels"):
        for fold in range(20):
            content = (source / domain / f"fold{fold}.json").read_text(encoding="utf-8")
            for entry in json.loads(content):
                # The same sentence stands in both domains, or twice.
                new = {"text": entry["text"].strip(), "labels": []}
                row = rows.setdefault(text_key(entry["text"]), new)
                row["labels"] = sorted({*row["labels"], *entry.get("intents", [])})
    test, rest = _cut(list(rows.values()), 750)
    calibration, rest = _cut(rest, 400)
    validation, train = _cut(rest, 200)
    return _splits(train, validation, calibration, test)


TASKS: dict[str, Callable[[Path], Splits]] = {
    "banking77": banking77,
    "clinc150": clinc150,
    "hwu64": hwu64,
    "nlupp": nlupp,
    "sms_spam": sms_spam,
    "snips": snips,
    "snips_slots": snips_slots,
    "stsb": stsb,
    "wnut17": wnut17,
}
FOLDERS = {"snips_slots": "snips"}
"""Of the public data, where a task's is not called like the task."""


def prepare(data: Path, out: Path, names: Iterable[str] = tuple(TASKS)) -> dict[str, Any]:
    """Write the splits of the named tasks and return how many rows each has.

    Args:
        data: Folder of the public data sets.
        out: Gets a folder for each task, and `splits.json`.
        names: Of the tasks.
    """
    counts: dict[str, Any] = {"seed": SEED}
    for name in names:
        splits = TASKS[name](data / FOLDERS.get(name, name))
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for split, rows in splits.items():
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        counts[name] = {split: len(rows) for split, rows in splits.items()}
        counts[name]["test_rows_in_train"] = len(splits["test"]) - len(
            _without(splits["test"], splits["train"])
        )
    (out / "splits.json").write_text(json.dumps(counts, indent=2) + "\n")
    return counts


def text_key(text: str) -> str:
    """Return what two texts have in common that the uncased backbones read alike."""
    return " ".join(text.casefold().split())


def _row_key(row: Row) -> tuple[str, str]:
    return text_key(row["text"]), text_key(row.get("text_pair", ""))


def data_folder(given: Path | None) -> Path:
    """Return the folder of the public data sets, from the option or the environment."""
    found = given or os.environ.get("PETSTREAM_DATA")
    if not found or not Path(found).is_dir():
        sys.exit(
            "no public data: set PETSTREAM_DATA to the folder that holds banking77/, clinc150/, "
            "hwu64/, nlupp/, sms_spam/, snips/, stsb/ and wnut17/ (examples/tasks/ATTRIBUTION.md "
            "says where they come from)"
        )
    return Path(found)


def _splits(
    train: list[Row], validation: list[Row], calibration: list[Row], test: list[Row]
) -> Splits:
    # A temperature or a threshold that is fitted to rows the PET has learned is too sure of itself.
    calibration = _without(calibration, train, validation, test)
    return {
        "train": train,
        "validation": validation,
        "calibration": calibration,
        "test": test,
        "sample": _sample(_without(test, train, validation, calibration)),
    }


def _without(rows: list[Row], *others: list[Row]) -> list[Row]:
    """Return the rows whose text is in none of the others."""
    keys = {_row_key(row) for other in others for row in other}
    return [row for row in rows if _row_key(row) not in keys]


def _sample(rows: list[Row]) -> list[Row]:
    """Return up to NUM_SAMPLE_ROWS of the rows, no text twice."""
    distinct = list({_row_key(row): row for row in rows}.values())
    drawn, _ = _cut(distinct, min(NUM_SAMPLE_ROWS, len(distinct)))
    return drawn


def _single(text: str, label: str) -> Row:
    return {"text": text, "label": label}


def _cut(rows: list[Row], num_rows: int) -> tuple[list[Row], list[Row]]:
    """Return `num_rows` rows drawn by SEED, and the others, both in the given order."""
    drawn = frozenset(random.Random(SEED).sample(range(len(rows)), num_rows))
    return (
        [row for index, row in enumerate(rows) if index in drawn],
        [row for index, row in enumerate(rows) if index not in drawn],
    )


def _read_categories(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return [_single(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]


def _read_parallel(folder: Path) -> list[Row]:
    texts = (folder / "seq.in").read_text(encoding="utf-8").split("\n")
    labels = (folder / "label").read_text(encoding="utf-8").split("\n")
    pairs = zip(texts, labels, strict=True)
    return [_single(text.strip(), label.strip()) for text, label in pairs if text.strip()]


def _read_tagged(folder: Path) -> list[Row]:
    texts = (folder / "seq.in").read_text(encoding="utf-8").splitlines()
    tags = (folder / "seq.out").read_text(encoding="utf-8").splitlines()
    pairs = zip(texts, tags, strict=True)
    return [{"text": text.strip(), "labels": of_text.split()} for text, of_text in pairs]


def _read_conll(path: Path) -> list[Row]:
    rows: list[Row] = []
    for sentence in path.read_text(encoding="utf-8").replace("\t\n", "\n").split("\n\n"):
        pairs = [line.split("\t") for line in sentence.splitlines() if line.strip()]
        if pairs:
            # Some words have a no-break space in them; a word is what stands between spaces.
            words = ["".join(word.split()) for word, _ in pairs]
            rows.append({"text": " ".join(words), "labels": [tag.strip() for _, tag in pairs]})
    return rows


def _read_scored(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {"text": first.strip(), "text_pair": second.strip(), "value": float(score)}
            for first, second, score in csv.reader(file)
        ]


def main() -> None:
    """Write all splits and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="default: $PETSTREAM_DATA")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    print(json.dumps(prepare(data_folder(arguments.data), arguments.out), indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
