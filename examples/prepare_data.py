"""Turns the public data sets of the six demo tasks into labelled rows.

    PETSTREAM_DATA=/path/to/data python examples/prepare_data.py --out /tmp/petstream-data

Each task gets `train`, `validation` (chooses the epoch), `calibration` (fits the cascade) and
`test.jsonl`. Public splits are kept where there are any; what is split here is split by SEED, after
sorting nothing: the order of the public files counts. `splits.json` says how many rows went where.
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


def sms_spam(source: Path) -> Splits:
    """Ham and spam; there is no public split, so all four are ours."""
    text = (source / "SMSSpamCollection").read_text(encoding="utf-8")
    rows = []
    for line in text.splitlines():
        label, _, message = line.partition("\t")
        if message.strip():
            rows.append(_single(message.strip(), label))
    test, rest = _cut(rows, 1115)
    calibration, rest = _cut(rest, 557)
    validation, train = _cut(rest, 400)
    return _splits(train, validation, calibration, test)


def nlupp(source: Path) -> Splits:
    """62 intents, any number of them for a text; all folds of both domains, split by us."""
    labels_by_text: dict[str, set[str]] = {}
    for domain in ("banking", "hotels"):
        for fold in range(20):
            content = (source / domain / f"fold{fold}.json").read_text(encoding="utf-8")
            for entry in json.loads(content):
                # The same sentence stands in both domains, or twice: it must not be in two splits.
                labels = labels_by_text.setdefault(entry["text"].strip(), set())
                labels.update(entry.get("intents", []))
    rows = [{"text": text, "labels": sorted(found)} for text, found in labels_by_text.items()]
    test, rest = _cut(rows, 750)
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
}


def prepare(data: Path, out: Path, names: Iterable[str] = tuple(TASKS)) -> dict[str, Any]:
    """Write the splits of the named tasks and return how many rows each has."""
    counts: dict[str, Any] = {"seed": SEED}
    for name in names:
        splits = TASKS[name](data / name)
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for split, rows in splits.items():
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        counts[name] = {split: len(rows) for split, rows in splits.items()}
    (out / "splits.json").write_text(json.dumps(counts, indent=2) + "\n")
    return counts


def data_folder(given: Path | None) -> Path:
    """Return the folder of the public data sets, from the option or the environment."""
    found = given or os.environ.get("PETSTREAM_DATA")
    if not found or not Path(found).is_dir():
        sys.exit(
            "no public data: set PETSTREAM_DATA to the folder that holds banking77/, clinc150/, "
            "hwu64/, nlupp/, sms_spam/ and snips/ (examples/tasks/ATTRIBUTION.md says where they "
            "come from)"
        )
    return Path(found)


def _splits(
    train: list[Row], validation: list[Row], calibration: list[Row], test: list[Row]
) -> Splits:
    return {"train": train, "validation": validation, "calibration": calibration, "test": test}


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


def main() -> None:
    """Write all splits and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="default: $PETSTREAM_DATA")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    print(json.dumps(prepare(data_folder(arguments.data), arguments.out), indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
