"""Rows as token ids and targets, in batches of similar length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from tasks.training.errors import BadRows
from tasks.training.rows import LabelledRows
from tasks.word_tokens import word_tokens

IGNORED = -100
"""Target of a token that speaks for no word (`tasks.word_tokens`)."""
# A oneDNN kernel is built for each new shape: rounded lengths keep them few.
_LENGTH_STEP = 4
# Batches are sorted by length within so many of them, so that rows still mix.
_BATCHES_PER_POOL = 50


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One row as the model takes it."""

    token_ids: tuple[int, ...]
    type_ids: tuple[int, ...]
    target: tuple[float, ...]
    """Single label: (index,). Multi-label: 0 or 1 for each label. Regression: (value,).
    Tagging: for each token an index or `IGNORED`."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows padded to one length."""

    token_ids: Tensor
    """Shape (num_rows, num_tokens), int64."""
    type_ids: Tensor
    """Shape (num_rows, num_tokens), int64."""
    attention_mask: Tensor
    """Shape (num_rows, num_tokens), bool; False at padding."""
    targets: Tensor
    """Single label (num_rows,) int64; multi-label (num_rows, num_labels) and regression
    (num_rows, 1) float32; tagging (num_rows, num_tokens) int64."""


def load_tokenizer(backbone: Path, max_tokens: int) -> Tokenizer:
    """Read a backbone's tokenizer, cutting rows at `max_tokens`, without padding.

    Special tokens that stand in a text are words like any other, as they are while serving.
    """
    tokenizer = Tokenizer.from_file(str(backbone / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def encode_rows(
    rows: LabelledRows, labels: Sequence[str], tokenizer: Tokenizer
) -> list[EncodedRow]:
    """Tokenise the rows and turn labels into targets.

    Raises:
        BadRows: If a label is unknown.
    """
    rows.check_labels_known(labels)
    index_of = {label: index for index, label in enumerate(labels)}
    texts = [row.text if row.text_pair is None else (row.text, row.text_pair) for row in rows.rows]
    encoded = []
    for row, encoding in zip(rows.rows, tokenizer.encode_batch(texts), strict=True):
        if rows.kind == "regression":
            target: tuple[float, ...] = (row.value,)
        elif rows.kind == "single_label":
            target = (float(index_of[row.labels[0]]),)
        elif rows.kind == "multi_label":
            target = tuple(float(label in row.labels) for label in labels)
        else:
            tags = [IGNORED] * len(encoding.ids)
            for word in word_tokens(row.text, encoding.offsets, encoding.sequence_ids):
                tags[word.token] = index_of[row.labels[word.number]]
            target = tuple(map(float, tags))
        encoded.append(EncodedRow(tuple(encoding.ids), tuple(encoding.type_ids), target))
    return encoded


def plain_batches(rows: Sequence[EncodedRow], kind: str, rows_per_batch: int) -> Iterator[Batch]:
    """Yield the rows in their order."""
    for start in range(0, len(rows), rows_per_batch):
        yield collate(rows[start : start + rows_per_batch], kind)


def shuffled_batches(
    rows: Sequence[EncodedRow], kind: str, rows_per_batch: int, generator: torch.Generator
) -> Iterator[Batch]:
    """Yield all rows once, in random batches of similar length."""
    order = torch.randperm(len(rows), generator=generator).tolist()
    pool_size = rows_per_batch * _BATCHES_PER_POOL
    batches = []
    for start in range(0, len(order), pool_size):
        pool = sorted(order[start : start + pool_size], key=lambda i: len(rows[i].token_ids))
        batches += [pool[i : i + rows_per_batch] for i in range(0, len(pool), rows_per_batch)]
    for index in torch.randperm(len(batches), generator=generator).tolist():
        yield collate([rows[i] for i in batches[index]], kind)


def num_batches(num_rows: int, rows_per_batch: int) -> int:
    """Return how many batches `shuffled_batches` yields."""
    pool_size = rows_per_batch * _BATCHES_PER_POOL
    whole_pools, rest = divmod(num_rows, pool_size)
    return whole_pools * _BATCHES_PER_POOL + -(-rest // rows_per_batch)


def collate(rows: Sequence[EncodedRow], kind: str) -> Batch:
    """Pad the rows to one length, a multiple of 4."""
    if not rows:
        raise BadRows("no rows to batch")
    longest = max(len(row.token_ids) for row in rows)
    num_tokens = -(-longest // _LENGTH_STEP) * _LENGTH_STEP
    token_ids = torch.zeros(len(rows), num_tokens, dtype=torch.int64)
    type_ids = torch.zeros_like(token_ids)
    mask = torch.zeros(len(rows), num_tokens, dtype=torch.bool)
    tags = torch.full((len(rows), num_tokens), IGNORED, dtype=torch.int64)
    for index, row in enumerate(rows):
        length = len(row.token_ids)
        token_ids[index, :length] = torch.tensor(row.token_ids)
        type_ids[index, :length] = torch.tensor(row.type_ids)
        mask[index, :length] = True
        if kind == "tagging":
            tags[index, :length] = torch.tensor(row.target, dtype=torch.int64)
    if kind == "tagging":
        return Batch(token_ids, type_ids, mask, tags)
    targets = torch.tensor([row.target for row in rows])
    if kind == "single_label":
        targets = targets[:, 0].to(torch.int64)
    return Batch(token_ids, type_ids, mask, targets)
