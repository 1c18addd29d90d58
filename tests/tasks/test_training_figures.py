"""Figures of merit, on outputs small enough to count by hand."""

import numpy as np
import pytest

from messages.task_event import TaskKind
from tasks.training.evaluation import PerRow
from tasks.training.figures import figures

LABELS = ("O", "B-a", "I-a", "B-b")


def _tagged(*rows: tuple[str, str]) -> PerRow:
    """Rows of what is said and what is true, each a digit for each word."""
    return PerRow(
        [np.eye(len(LABELS), dtype=np.float32)[[int(tag) for tag in said]] for said, _ in rows],
        [np.array([float(tag) for tag in true]) for _, true in rows],
        "tagging",
    )


def test_a_span_counts_when_ends_and_name_are_right() -> None:
    """Given: a(0-1), b(3), a(0); true: a(0-1), b(2-2), a(0-1): one of three and three."""
    found = figures(_tagged(("1203", "1230"), ("10", "12")), LABELS)

    assert found["span_f1"] == pytest.approx(1 / 3)
    assert found["word_accuracy"] == pytest.approx(3 / 6)
    assert found["exact_match"] == 0.0


def test_a_span_does_not_reach_into_the_next_row() -> None:
    found = figures(_tagged(("01", "01"), ("20", "20")), LABELS)

    assert found == {"span_f1": 1.0, "exact_match": 1.0, "word_accuracy": 1.0}
    apart = figures(_tagged(("01", "01"), ("20", "00")), LABELS)
    assert apart["span_f1"] == pytest.approx(2 / 3)


def test_rows_without_spans_are_right_when_nothing_is_said() -> None:
    assert figures(_tagged(("000", "000")), LABELS)["span_f1"] == 1.0


@pytest.mark.parametrize(
    ("kind", "outputs", "targets", "wanted"),
    [
        ("single_label", [[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], {"accuracy": 0.5}),
        (
            "multi_label",
            [[1.0, -1.0], [1.0, 1.0]],
            [[1.0, 0.0], [1.0, 0.0]],
            {"exact_match": 0.5, "micro_f1": 0.8},
        ),
        ("regression", [[1.0], [3.0]], [[0.0], [2.0]], {"pearson": 1.0, "rmse": 1.0}),
        ("regression", [[1.0], [1.0]], [[0.0], [2.0]], {"pearson": 0.0, "rmse": 1.0}),
    ],
)
def test_the_figures_of_a_kind(
    kind: TaskKind,
    outputs: list[list[float]],
    targets: list[float] | list[list[float]],
    wanted: dict[str, float],
) -> None:
    found = PerRow(
        [np.array(row, np.float32) for row in outputs], [np.array(row) for row in targets], kind
    )

    assert figures(found, ("no", "yes")) == pytest.approx(wanted)


def test_other_outputs_keep_their_rows() -> None:
    """Outputs of a probe over the words of all rows are cut where the rows are."""
    found = _tagged(("12", "12"), ("0", "0"), ("103", "103"))

    again = found.with_outputs(found.stacked()[0] * 2)

    assert [len(row) for row in again.outputs] == [2, 1, 3]
    assert figures(again, LABELS)["exact_match"] == 1.0
