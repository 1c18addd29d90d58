"""Labelled rows: what is read, and the one-line errors of files that cannot be learned from."""

from pathlib import Path

import pytest

from messages.task_event import TaskKind
from tasks.training.errors import BadRows, NotTrainable
from tasks.training.rows import read_rows
from tasks.training.splits import hold_out


def _file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_jsonl_of_single_labels(tmp_path: Path) -> None:
    """The kind is inferred from the field; labels are sorted."""
    path = _file(
        tmp_path, "a.jsonl", '{"text": "x", "label": "b"}\n\n{"text": "y", "label": "a"}\n'
    )

    rows = read_rows(path)

    assert rows.kind == "single_label"
    assert [row.labels for row in rows.rows] == [("b",), ("a",)]
    assert rows.label_set() == ("a", "b")
    assert not rows.takes_pair


@pytest.mark.parametrize("column", ["label", "category"])
def test_csv_with_a_header(tmp_path: Path, column: str) -> None:
    """Quoted commas and a byte order mark are read; `category` is a label too."""
    path = _file(tmp_path, "a.csv", f'\ufefftext,{column}\n"one, two",x\nthree,y\n')

    rows = read_rows(path)

    assert [row.text for row in rows.rows] == ["one, two", "three"]
    assert rows.label_set() == ("x", "y")


def test_pairs_values_and_tags(tmp_path: Path) -> None:
    """Regression of pairs, and tagging with one tag for each word."""
    pairs = read_rows(
        _file(
            tmp_path,
            "r.jsonl",
            '{"text": "a", "text_pair": "b", "value": 1}\n'
            '{"text": "c", "text_pair": "d", "value": 2.5}\n',
        )
    )
    tags = read_rows(
        _file(tmp_path, "t.jsonl", '{"text": "to New York", "labels": ["O", "B", "I"]}\n'),
        "tagging",
    )

    assert (pairs.kind, pairs.takes_pair, pairs.label_set()) == ("regression", True, ("value",))
    assert tags.label_set() == ("B", "I", "O")


BAD_FILES: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("a.jsonl", "", "no rows"),
    "only blank lines": ("a.jsonl", "\n \n", "no rows"),
    "header only": ("a.csv", "text,label\n", "no rows"),
    "other ending": ("a.txt", "x", "neither .jsonl nor .csv"),
    "no JSON": ("a.jsonl", "{", "line 1: not JSON"),
    "too deep JSON": ("a.jsonl", "[" * 200_000, "not JSON"),
    "a list": ("a.jsonl", "[1]\n", "not a JSON object"),
    "no text": ("a.csv", "sentence,label\nx,y\n", "line 2: no column text"),
    "no label": ("a.jsonl", '{"text": "x"}\n', "no label"),
    "two labels": ("a.jsonl", '{"text": "x", "label": "a", "value": 1}\n', "more than one label"),
    "short line": ("a.csv", "text,label\nx\n", "not as many columns"),
    "long line": ("a.csv", "text,label\nx,y,z\n", "not as many columns"),
    "empty text": ("a.jsonl", '{"text": " ", "label": "a"}\n', "text is empty"),
    "text of a wrong type": ("a.jsonl", '{"text": 3, "label": "a"}\n', "text is empty or not"),
    "label of a wrong type": ("a.jsonl", '{"text": "x", "label": 3}\n', "label is empty or not"),
    "labels not a list": ("a.jsonl", '{"text": "x", "labels": "a"}\n', "labels is not a list"),
    "value in words": ("a.csv", "text,value\nx,high\n", "value 'high' is not a number"),
    "value is true": ("a.jsonl", '{"text": "x", "value": true}\n', "value is not a number"),
    "value is NaN": ("a.jsonl", '{"text": "x", "value": NaN}\n', "value is not finite"),
    "no UTF-8": ("a.csv", b"text,label\n\xff\xfe,x\n", "cannot be read as UTF-8"),
    "mixed kinds": (
        "a.jsonl",
        '{"text": "x", "label": "a"}\n{"text": "y", "labels": ["a"]}\n',
        "line 2: a row of kind multi_label among rows of kind single_label",
    ),
    "some pairs": (
        "a.jsonl",
        '{"text": "x", "label": "a"}\n{"text": "y", "text_pair": "z", "label": "a"}\n',
        "give all or none",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_line(tmp_path: Path, case: str) -> None:
    """Every bad file is the typed error, which names the file and the fault in one line."""
    name, content, message = BAD_FILES[case]
    path = _file(tmp_path, name, content)

    with pytest.raises(BadRows, match=message) as raised:
        read_rows(path)

    assert name in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) <= 240


def test_embeddings_have_no_labelled_rows(tmp_path: Path) -> None:
    """Where they come from instead is said."""
    path = _file(tmp_path, "a.jsonl", '{"text": "x", "label": "b"}\n')

    with pytest.raises(NotTrainable, match="petstream tasks import"):
        read_rows(path, "embedding")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The message has the path that was asked for."""
    with pytest.raises(BadRows, match=r"no file .*absent\.jsonl"):
        read_rows(tmp_path / "absent.jsonl")


def test_a_wrong_number_of_tags_is_refused(tmp_path: Path) -> None:
    """Tags and words must match one to one."""
    path = _file(tmp_path, "t.jsonl", '{"text": "a b", "labels": ["O"]}\n')

    with pytest.raises(BadRows, match="1 tags for 2 words"):
        read_rows(path, "tagging")


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("single_label", '{"text": "x", "label": "a"}\n'),
        ("multi_label", '{"text": "x", "labels": []}\n'),
        ("regression", '{"text": "x", "value": 2}\n'),
    ],
)
def test_nothing_to_tell_apart_is_refused(tmp_path: Path, kind: TaskKind, line: str) -> None:
    """One class, no labels at all or one value: there is nothing to learn."""
    rows = read_rows(_file(tmp_path, "a.jsonl", line * 3))

    assert rows.kind == kind
    with pytest.raises(BadRows, match=r"a\.jsonl"):
        rows.label_set()


def test_an_unknown_label_names_its_row(tmp_path: Path) -> None:
    """Validation rows may only have labels that were trained on."""
    rows = read_rows(
        _file(tmp_path, "v.jsonl", '{"text": "x", "label": "a"}\n{"text": "y", "label": "new"}\n')
    )

    with pytest.raises(BadRows, match=r"v\.jsonl, row 2: label 'new' is not among the 2 labels"):
        rows.check_labels_known(("a", "b"))


def test_holding_out_is_fixed_by_the_seed_and_keeps_every_label(tmp_path: Path) -> None:
    """Same seed, same split; a label's only row stays in training; no row is lost or doubled."""
    lines = [f'{{"text": "row {i}", "label": "{"rare" if i == 7 else i % 3}"}}' for i in range(60)]
    rows = read_rows(_file(tmp_path, "a.jsonl", "\n".join(lines)))

    splits = [hold_out(rows, 0.5, seed) for seed in range(20)]

    assert hold_out(rows, 0.5, 3) == splits[3]
    assert len({held.rows for _, held in splits}) == 20
    for kept, held in splits:
        assert {row.labels for row in kept.rows} == {row.labels for row in rows.rows}
        assert sorted(row.text for row in kept.rows + held.rows) == sorted(
            row.text for row in rows.rows
        )


def test_too_few_rows_to_hold_out(tmp_path: Path) -> None:
    """Two rows have no tenth."""
    rows = read_rows(
        _file(tmp_path, "a.jsonl", '{"text": "x", "label": "a"}\n{"text": "y", "label": "b"}\n')
    )

    with pytest.raises(BadRows, match="too few to hold out"):
        hold_out(rows, 0.1, 0)
