"""`task.json`: strict, canonical, and each fault of its own type."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tasks.description import (
    MAX_DESCRIPTION_BYTES,
    Cascade,
    TaskDescription,
    digest_of,
    parse_description,
)
from tasks.errors import (
    ArtifactError,
    BadDescription,
    FileTooLarge,
    FormatForbidden,
    LevelNotFound,
    PathEscape,
    UnsupportedFormat,
)

Document = dict[str, Any]
Change = Callable[[Document], Any]


def document() -> Document:
    """Return a valid description with two levels and a cascade."""
    return {
        "format": 1,
        "name": "weather",
        "revision": 3,
        "kind": "multi_label",
        "labels": ["rain", "wind"],
        "takes_pair": False,
        "source": "made up",
        "licence": "CC0",
        "levels": [
            {
                "level": level,
                "backbone": {"name": "tiny", "digest": "sha256:" + "ab" * 32},
                "pet": {"kind": "lora", "rank": 2, "alpha": 4.0, "sites": ["query", "value"]},
                "pooling": "mean",
                "max_tokens": 128,
                "file": f"level-{level}.safetensors",
                "sha256": "cd" * 32,
            }
            for level in (0, 1)
        ],
        "cascade": {
            "temperatures": [1.5, 0.75],
            "threshold": 0.875,
            "ensemble_weights": [0.25, 0.75],
            "accuracies": [0.8, 0.9],
            "decision_threshold": 0.5,
            "fitted_on_rows": 400,
            "target": 0.9,
        },
    }


def raw(changed: Document) -> bytes:
    """Return a document's bytes."""
    return json.dumps(changed).encode()


def test_a_valid_description_is_read() -> None:
    """Every field arrives."""
    task = parse_description(raw(document()))

    assert task.model_dump(mode="json", exclude_none=True) == document()
    assert task.num_outputs == 2
    assert task.level(1).file == "level-1.safetensors"


def test_canonical_bytes_are_read_back_and_stable() -> None:
    """Writing what was read gives the same bytes, so the digest identifies the content."""
    task = parse_description(raw(document()))

    again = parse_description(task.to_bytes())

    assert again == task
    assert again.to_bytes() == task.to_bytes()
    assert task.digest() == digest_of(task.to_bytes())


def test_canonical_bytes_are_the_frozen_ones() -> None:
    """A later release must compute the digest that was registered."""
    assert (
        parse_description(raw(document())).digest()
        == "sha256:0fc595b5b43c2f8833e6181c1ee434270d33c56c83644e251008008a15c29512"
    )


def test_every_byte_of_content_counts() -> None:
    """Two tasks that differ anywhere have different digests."""
    changed = document()
    changed["levels"][1]["sha256"] = "ce" + "cd" * 31

    assert parse_description(raw(changed)).digest() != parse_description(raw(document())).digest()


def test_an_absent_level_is_an_error_of_its_own() -> None:
    """With the levels there are."""
    with pytest.raises(LevelNotFound, match=r"\[0, 1\], not 2"):
        parse_description(raw(document())).level(2)


def put(*path: str | int, value: object) -> Change:
    """Return a change that sets one value of a document."""

    def change(changed: Document) -> None:
        place: Any = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


def drop(*path: str | int) -> Change:
    """Return a change that removes one value of a document."""

    def change(changed: Document) -> None:
        place: Any = changed
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]

    return change


PET = ("levels", 0, "pet")

BAD: list[tuple[str, Change, str]] = [
    ("unknown field", put("colour", value="red"), "colour"),
    ("unknown field of a level", put("levels", 0, "url", value="http://x"), "url"),
    ("unknown field of a PET", put(*PET, "auto_map", value={}), "auto_map"),
    ("no name", drop("name"), "name"),
    ("name with a slash", put("name", value="../etc"), "name"),
    ("name with a line break", put("name", value="weather\n"), "name"),
    ("capital name", put("name", value="Weather"), "name"),
    ("long name", put("name", value="a" * 65), "name"),
    ("revision 0", put("revision", value=0), "revision"),
    ("revision as text", put("revision", value="3"), "revision"),
    ("revision true", put("revision", value=True), "revision"),
    ("revision 3.0", put("revision", value=3.5), "revision"),
    ("huge revision", put("revision", value=10**12), "revision"),
    ("unknown kind", put("kind", value="generation"), "kind"),
    ("no labels", put("labels", value=[]), "labels"),
    ("empty label", put("labels", value=["", "a"]), "labels"),
    ("label twice", put("labels", value=["a", "a"]), "twice"),
    ("control character", put("labels", value=["a\x1b[2J", "b"]), "printed"),
    ("label no text", put("labels", value=[1, 2]), "labels"),
    ("one label for one of many", put("kind", value="single_label"), "decision_threshold"),
    ("takes_pair as number", put("takes_pair", value=0), "takes_pair"),
    ("no levels", put("levels", value=[]), "levels"),
    ("level twice", put("levels", 1, "level", value=0), "ascend"),
    ("levels descend", put("levels", 0, "level", value=5), "ascend"),
    ("level 8", put("levels", 1, "level", value=8), "level"),
    ("file twice", put("levels", 1, "file", value="level-0.safetensors"), "one file"),
    ("pooling none", put("levels", 0, "pooling", value="none"), "pooling"),
    ("unknown pooling", put("levels", 0, "pooling", value="max"), "pooling"),
    ("no tokens", put("levels", 0, "max_tokens", value=2), "max_tokens"),
    ("bad SHA-256", put("levels", 0, "sha256", value="CD" * 32), "sha256"),
    ("short digest", put("levels", 0, "backbone", "digest", value="sha256:ab"), "digest"),
    ("backbone path", put("levels", 0, "backbone", "name", value="../l3"), "name"),
    ("unknown PET", put(*PET, "kind", value="prefix"), "pet"),
    ("no PET kind", drop(*PET, "kind"), "pet"),
    ("rank 0", put(*PET, "rank", value=0), "rank"),
    ("rank 1e6", put(*PET, "rank", value=10**6), "rank"),
    ("rank as float", put(*PET, "rank", value=2.5), "rank"),
    ("alpha 0", put(*PET, "alpha", value=0), "alpha"),
    ("alpha NaN", put(*PET, "alpha", value=float("nan")), "alpha|JSON"),
    ("alpha infinite", put(*PET, "alpha", value=float("inf")), "alpha|JSON"),
    ("unknown site", put(*PET, "sites", value=["pooler"]), "sites"),
    ("site twice", put(*PET, "sites", value=["key", "key"]), "twice"),
    ("no site", put(*PET, "sites", value=[]), "sites"),
    ("temperatures of one level", put("cascade", "temperatures", value=[1.0]), "temperatures"),
    ("temperature 0", put("cascade", "temperatures", value=[0, 1.0]), "temperatures"),
    ("tiny temperature", put("cascade", "temperatures", value=[1e-320, 1.0]), "temperatures"),
    ("huge temperature", put("cascade", "temperatures", value=[1.0, 101.0]), "temperatures"),
    ("weights beyond 1", put("cascade", "ensemble_weights", value=[0.9, 0.9]), "add up"),
    ("negative weight", put("cascade", "ensemble_weights", value=[-0.5, 1.0]), "ensemble"),
    ("three accuracies", put("cascade", "accuracies", value=[0.1] * 3), "accuracies"),
    ("threshold 2", put("cascade", "threshold", value=2), "threshold"),
    ("no rows", put("cascade", "fitted_on_rows", value=0), "fitted_on_rows"),
]


@pytest.mark.parametrize(("change", "where"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_field_is_refused_and_named(change: Change, where: str) -> None:
    """One line, with the field or the rule in it."""
    changed = document()
    change(changed)

    with pytest.raises(BadDescription, match=where) as caught:
        parse_description(raw(changed))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["single_label", "tagging"])
def test_one_of_many_needs_two_labels(kind: str) -> None:
    """A softmax over one label says nothing."""
    changed = document() | {"kind": kind, "labels": ["only"]}
    del changed["cascade"]
    if kind == "tagging":
        for level in changed["levels"]:
            level["pooling"] = "none"

    with pytest.raises(BadDescription, match="two labels"):
        parse_description(raw(changed))


def test_regression_has_one_value() -> None:
    """And it has a name."""
    changed = document() | {"kind": "regression"}
    del changed["cascade"]

    with pytest.raises(BadDescription, match="one label"):
        parse_description(raw(changed))
    assert parse_description(raw(changed | {"labels": ["similarity"]})).num_outputs == 1


def test_tagging_pools_nothing() -> None:
    """Its head acts on every token."""
    changed = document() | {"kind": "tagging"}
    del changed["cascade"]

    with pytest.raises(BadDescription, match="pooling"):
        parse_description(raw(changed))
    for level in changed["levels"]:
        level["pooling"] = "none"
    assert parse_description(raw(changed)).kind == "tagging"


def embedding_document() -> Document:
    """Return a valid description of an embedding."""
    changed = document() | {"kind": "embedding", "labels": []}
    del changed["cascade"], changed["levels"][1]
    return changed | {"embedding": {"dimensions": 384, "normalise": True}}


def test_an_embedding_is_read() -> None:
    """It has dimensions in place of labels, and its canonical bytes stay what they are."""
    task = parse_description(raw(embedding_document()))

    assert task.model_dump(mode="json", exclude_none=True) == embedding_document()
    assert task.num_outputs == 384
    assert parse_description(task.to_bytes()) == task


TANH = {"hidden": "own", "activation": "tanh"}
SECOND_LEVEL = document()["levels"][1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda task: task.pop("embedding"), "must have it"),
        (put("labels", value=["a"]), "no labels"),
        (lambda task: task["levels"].append(SECOND_LEVEL), "has one level: vectors of two"),
        (
            lambda task: task.update(
                cascade=document()["cascade"]
                | {
                    "temperatures": [1.0],
                    "ensemble_weights": [1.0],
                    "accuracies": [1.0],
                    "decision_threshold": None,
                }
            ),
            "no cascade",
        ),
        (put("levels", 0, "pooling", value="none"), "pooling is none for tagging"),
        (put("embedding", "dimensions", value=0), "embedding.dimensions"),
        (put("embedding", "dimensions", value=16_385), "embedding.dimensions"),
        (put("embedding", "normalise", value=1), "embedding.normalise"),
        (put("embedding", value={"dimensions": 3}), "embedding.normalise"),
        (put("embedding", "matryoshka", value=1), "embedding.matryoshka"),
        (put("levels", 0, "head", value={}), "leave `head` out"),
        (put("levels", 0, "head", value={"output": "linear"}), "head.output"),
        (put("levels", 0, "head", value={"hidden": "own", "output": "none"}), "go together"),
        (put("levels", 0, "head", value={"activation": "tanh", "output": "none"}), "together"),
        (put("levels", 0, "head", value={"features": 3, "output": "none"}), "of its own"),
        (
            put("levels", 0, "head", value=TANH | {"features": 3, "output": "none"}),
            "dimensions is 384, the head gives 3",
        ),
    ],
)
def test_an_embedding_that_cannot_be_is_refused(change: Change, says: str) -> None:
    """Each with what is wrong."""
    changed = embedding_document()
    change(changed)

    with pytest.raises(BadDescription, match=says):
        parse_description(raw(changed))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("embedding", value={"dimensions": 2, "normalise": False}), "kind embedding"),
        (put("levels", 0, "head", value={"output": "none"}), "gives embeddings, not multi_label"),
        (put("labels", value=[]), "needs labels, at least one"),
    ],
)
def test_what_belongs_to_embeddings_is_refused_elsewhere(change: Change, says: str) -> None:
    """Labels need a row of the head each."""
    changed = document()
    change(changed)

    with pytest.raises(BadDescription, match=says):
        parse_description(raw(changed))


@pytest.mark.parametrize(
    "file",
    [
        "../level-0.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        "",
        "a\x00b.safetensors",
        "..\\level-0.safetensors",
        "%2e%2e%2flevel.safetensors",
        "~root.safetensors",
        ".hidden.safetensors",
        "level-0.safetensors\n",
        "a..b.safetensors",
        "C:level.safetensors",
        "x" * 200 + ".safetensors",
    ],
)
def test_a_file_name_that_is_not_plain_escapes(file: str) -> None:
    """Whatever the spelling."""
    changed = document()
    changed["levels"][0]["file"] = file

    with pytest.raises(PathEscape):
        parse_description(raw(changed))


@pytest.mark.parametrize(
    "file",
    [
        "pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "model.pickle", "model.ckpt",
        "model.npy", "model.npz", "model.h5", "model.onnx", "model.zip", "model.tar.gz",
        "model.safetensors.zip", "level-0.SAFETENSORS", "level-0",
    ],
)  # fmt: skip
def test_only_safetensors_is_read(file: str) -> None:
    """Pickles, arrays of objects and archives are refused by name, before they are opened."""
    changed = document()
    changed["levels"][0]["file"] = file

    with pytest.raises(FormatForbidden):
        parse_description(raw(changed))


def test_a_later_format_is_told_before_anything_else() -> None:
    """Format 2 may have fields that look wrong to us: the format is what matters."""
    changed = document() | {"format": 2, "levels": "elsewhere", "new_field": 1}

    with pytest.raises(UnsupportedFormat, match="newer release"):
        parse_description(raw(changed))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b"\xff\xfe{}",
        b"\x80\x04\x95",
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"format": 1, "format": 1}',
        raw(document())[:-5],
        raw(document()) + b"{}",
        raw(document()).replace(b'"weather"', b'"weather", "name": "weather"'),
        raw(document()).replace(b'"made up"', b'"\\ud800"'),
        raw(document()).replace(b"400", b"9" * 5000),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_bytes_that_are_no_description_are_refused(text: bytes) -> None:
    """Cut, nested, doubled, encoded otherwise: one error type, no other exception."""
    with pytest.raises(BadDescription):
        parse_description(text)


def test_a_huge_description_is_refused_unparsed() -> None:
    """Before any parser sees it."""
    with pytest.raises(FileTooLarge):
        parse_description(b" " * (MAX_DESCRIPTION_BYTES + 1))


def test_all_errors_are_artifact_errors() -> None:
    """What a caller catches."""
    assert issubclass(BadDescription, ArtifactError)
    assert issubclass(PathEscape, ArtifactError)


def test_a_description_cannot_be_changed() -> None:
    """Frozen: what was validated stays so."""
    task: TaskDescription = parse_description(raw(document()))

    with pytest.raises(ValueError, match="frozen"):
        task.name = "other"
    assert isinstance(task.cascade, Cascade)
    with pytest.raises(ValueError, match="frozen"):
        task.cascade.threshold = 0.1


@pytest.mark.parametrize(
    ("kind", "takes_pair", "says"),
    [("single_label", True, "for one text"), ("tagging", False, "in the middle")],
)
def test_a_middle_is_not_cut_out_of_pairs_and_tagged_texts(
    kind: str, takes_pair: bool, says: str
) -> None:
    """`head_and_tail` is for one text that is not tagged."""
    found = document() | {"kind": kind, "takes_pair": takes_pair, "cascade": None}
    for level in found["levels"]:
        level["truncation"] = "head_and_tail"
        level["pooling"] = "none" if kind == "tagging" else "mean"

    with pytest.raises(BadDescription, match=says):
        parse_description(raw(found))
