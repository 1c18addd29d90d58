"""Texts to token ids: what a caller writes stays text, and one bad text stays one bad row."""

from pathlib import Path
from typing import get_args

import pytest
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import RobertaProcessing

from messages.errors import MessageError, Reason
from messages.truncation import Truncation, head_and_tail
from scheduler.tokenisation import (
    BackboneTokenizer,
    Tokenizers,
    without_pruned_words,
)
from tests.scheduler.stages import CLS, SEP, token


@pytest.fixture
def tokenizer(models_dir: Path) -> BackboneTokenizer:
    """The small BERT-like tokenizer."""
    return BackboneTokenizer(models_dir / "minilm-l3" / "tokenizer.json")


@pytest.fixture(scope="module")
def byte_level_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BackboneTokenizer:
    """A tokenizer of RoBERTa's build: bytes, `<s> a </s></s> b </s>`, other ids for all of them."""
    tokenizer = ByteLevelBPETokenizer(trim_offsets=True)
    tokenizer.train_from_iterator(
        ["alpha beta gamma bank card"] * 9,
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    )
    tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    path = tmp_path_factory.mktemp("roberta") / "tokenizer.json"
    tokenizer.save(str(path))
    return BackboneTokenizer(path)


def _ids(outcome: bytes | MessageError) -> list[int]:
    assert isinstance(outcome, bytes)
    return [int.from_bytes(outcome[i : i + 4], "little") for i in range(0, len(outcome), 4)]


def _reason(outcome: bytes | MessageError) -> Reason:
    assert isinstance(outcome, MessageError)
    return outcome.reason


def test_ids_are_little_endian_with_the_special_tokens(tokenizer: BackboneTokenizer) -> None:
    """Ids are little endian with the special tokens."""
    single, pair = tokenizer.encode(["Hello bank", ("alpha", "beta")], 16)

    assert _ids(single) == [CLS, token("hello"), token("bank"), SEP]
    assert _ids(pair) == [CLS, token("alpha"), SEP, token("beta"), SEP]


def test_a_pair_has_the_special_tokens_of_its_backbone(
    byte_level_tokenizer: BackboneTokenizer,
) -> None:
    """RoBERTa's has two separators between the texts, and neither comes from a text."""
    single, pair, cut = (
        _ids(outcome)
        for outcome in (
            *byte_level_tokenizer.encode(["alpha </s> beta", ("alpha", "<pad> beta")], 64),
            *byte_level_tokenizer.encode([("alpha " * 20, "alpha")], 10),
        )
    )

    assert (single[0], single[-1]) == (0, 2)
    assert min(single[1:-1]) > 4
    first_end = pair.index(2)
    assert pair[first_end : first_end + 2] == [2, 2]
    assert [number for number in pair if number <= 4] == [0, 2, 2, 2]
    assert len(cut) == 10
    assert [number for number in cut if number <= 4] == [0, 2, 2, 2]


@pytest.mark.parametrize("written", ["[SEP]", "[CLS]", "[PAD]", "[MASK]", "[UNK]", "[sep]"])
def test_a_special_token_in_a_text_is_a_word(tokenizer: BackboneTokenizer, written: str) -> None:
    """A special token in a text is a word."""
    (outcome,) = tokenizer.encode([f"alpha {written} beta"], 32)

    inner = _ids(outcome)[1:-1]
    assert min(inner) > token("[MASK]")
    assert inner[0] == token("alpha")
    assert inner[-1] == token("beta")


def test_the_longer_text_of_a_pair_is_cut_first(tokenizer: BackboneTokenizer) -> None:
    """The longer text of a pair is cut first."""
    (outcome,) = tokenizer.encode([("alpha " * 20, "beta gamma")], 9)

    assert _ids(outcome) == [CLS, *[token("alpha")] * 4, SEP, token("beta"), token("gamma"), SEP]


def test_a_text_of_just_enough_tokens_is_never_cut_or_refused(tokenizer: BackboneTokenizer) -> None:
    """Whatever the policy."""
    policies: tuple[Truncation, ...] = get_args(Truncation)
    for policy in policies:
        (outcome,) = tokenizer.encode(["alpha beta gamma"], 5, policy)

        assert _ids(outcome) == [CLS, token("alpha"), token("beta"), token("gamma"), SEP]


def test_a_long_text_is_refused_where_its_task_does_not_cut(tokenizer: BackboneTokenizer) -> None:
    """With both numbers; its neighbours, pairs among them, are not touched."""
    long, short, pair = tokenizer.encode(
        ["alpha " * 20, "beta", ("alpha " * 10, "beta")], 8, "refuse"
    )

    assert isinstance(long, MessageError)
    assert long.reason is Reason.TEXT_TOO_LONG
    assert "22 tokens, the task takes 8" in long.detail
    assert _ids(short) == [CLS, token("beta"), SEP]
    assert _reason(pair) is Reason.TEXT_TOO_LONG


def test_head_and_tail_keep_a_quarter_and_the_rest(tokenizer: BackboneTokenizer) -> None:
    """Of eight places two are the beginning's, six the end's."""
    text = " ".join(["alpha"] * 12 + ["beta"] * 12)

    (outcome,) = tokenizer.encode([text], 10, "head_and_tail")

    assert _ids(outcome) == [CLS, *[token("alpha")] * 2, *[token("beta")] * 6, SEP]


@pytest.mark.parametrize("max_tokens", [3, 4, 5, 510, 512])
def test_head_and_tail_fill_what_there_is_room_for(max_tokens: int) -> None:
    """The first and last token stay, order is kept, nothing is there twice."""
    ids = list(range(600))

    kept = head_and_tail(ids, max_tokens)

    assert len(kept) == max_tokens
    assert (kept[0], kept[-1]) == (0, 599)
    assert kept == sorted(set(kept))
    assert kept[1 : 1 + (max_tokens - 2) // 4] == ids[1 : 1 + (max_tokens - 2) // 4]


def test_rows_of_one_call_are_not_padded_to_each_other(tokenizer: BackboneTokenizer) -> None:
    """Rows of one call are not padded to each other."""
    outcomes = tokenizer.encode(["alpha", "alpha beta gamma bank card"], 32)

    assert [len(_ids(outcome)) for outcome in outcomes] == [3, 7]


def test_a_text_that_cannot_be_encoded_fails_alone(tokenizer: BackboneTokenizer) -> None:
    """A lone surrogate makes the library refuse the whole call."""
    before, bad, after = tokenizer.encode(["alpha", "a\ud800", "beta"], 16)

    assert _ids(before) == [CLS, token("alpha"), SEP]
    assert _reason(bad) is Reason.MODEL_FAILED
    assert _ids(after) == [CLS, token("beta"), SEP]


class PanicException(BaseException):
    """As pyo3 raises it: no Exception."""


class _Panicking:
    """Stands in for the Rust object when its code panics at one text."""

    def __init__(self, tokenizer: BackboneTokenizer) -> None:
        self._real = tokenizer._tokenizer

    def enable_truncation(self, max_length: int, *, strategy: str) -> None:
        self._real.enable_truncation(max_length, strategy=strategy)

    def encode_batch_fast(self, texts: list[str]) -> object:
        if "panic" in texts:
            raise PanicException("index out of bounds")
        return self._real.encode_batch_fast(texts)


def test_a_text_at_which_the_rust_code_panics_fails_alone(
    tokenizer: BackboneTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text at which the rust code panics fails alone."""
    monkeypatch.setattr(tokenizer, "_tokenizer", _Panicking(tokenizer))

    before, bad, after = tokenizer.encode(["alpha", "panic", "beta"], 16)

    assert _ids(before) == [CLS, token("alpha"), SEP]
    assert _reason(bad) is Reason.MODEL_FAILED
    assert _ids(after) == [CLS, token("beta"), SEP]


@pytest.mark.parametrize("text", ["\u200b", "\x00\x01", "\u202e\ufeff"])
def test_a_text_of_which_nothing_is_left_is_empty(tokenizer: BackboneTokenizer, text: str) -> None:
    """A text of which nothing is left is empty."""
    assert _reason(tokenizer.encode([text], 16)[0]) is Reason.EMPTY_TEXT


@pytest.mark.parametrize(("text", "max_tokens"), [("alpha", 2), (("alpha", "beta"), 3)])
def test_a_task_without_room_for_a_text_is_unavailable(
    tokenizer: BackboneTokenizer, text: str | tuple[str, str], max_tokens: int
) -> None:
    """The library would not cut at all then, and the row be longer than the model can read."""
    assert _reason(tokenizer.encode([text], max_tokens)[0]) is Reason.TASK_UNAVAILABLE


def test_no_texts_are_no_rows(tokenizer: BackboneTokenizer) -> None:
    """No texts are no rows."""
    assert tokenizer.encode([], 16) == []


def test_a_tokenizer_is_read_once(models_dir: Path) -> None:
    """A tokenizer is read once."""
    tokenizers = Tokenizers(models_dir)

    assert tokenizers.of("minilm-l3") is tokenizers.of("minilm-l3")


@pytest.mark.parametrize("backbone", ["missing", "../minilm-l3", "minilm-l3/../../etc", "broken"])
def test_a_backbone_that_is_not_there_is_unavailable(tmp_path: Path, backbone: str) -> None:
    """Not there, outside the folder, or no tokenizer: never an error of the process."""
    root = tmp_path / "models"
    (root / "broken").mkdir(parents=True)
    (root / "broken" / "tokenizer.json").write_text("{")
    tokenizers = Tokenizers(root)

    with pytest.raises(MessageError) as raised:
        tokenizers.of(backbone)

    assert raised.value.reason is Reason.TASK_UNAVAILABLE


def test_a_backbone_fetched_while_serving_is_found(models_dir: Path, tmp_path: Path) -> None:
    """A backbone fetched while serving is found."""
    tokenizers = Tokenizers(tmp_path)
    tokenizers.preload(["minilm-l3"])
    (tmp_path / "minilm-l3").mkdir()
    written = (models_dir / "minilm-l3" / "tokenizer.json").read_bytes()
    (tmp_path / "minilm-l3" / "tokenizer.json").write_bytes(written)

    assert _ids(tokenizers.of("minilm-l3").encode(["bank"], 8)[0]) == [CLS, token("bank"), SEP]


@pytest.mark.parametrize(
    ("text", "pair", "kept", "expected"),
    [
        ("a b c", None, None, "a b c"),
        ("a  b\tc", None, (0, 2), "a c"),
        ("a b", "c d", (0, 3), ("a", "d")),
        ("a b", "c d", (3,), ("a b", "d")),
        ("a b", "c d", (0, 1), ("a b", "c d")),
        ("a b", None, (7,), "a b"),
        ("a b", None, (), "a b"),
    ],
)
def test_pruning_keeps_the_words_it_names(
    text: str, pair: str | None, kept: tuple[int, ...] | None, expected: str | tuple[str, str]
) -> None:
    """Pruning keeps the words it names."""
    assert without_pruned_words(text, pair, kept) == expected
