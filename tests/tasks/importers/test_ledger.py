"""The ledger of a checkpoint's tensors: what is missing is named, what is left is told."""

import numpy as np
import pytest

from tasks.errors import BadCheckpoint, KeyMissing
from tasks.importers.ledger import Ledger, without_prefix

ONES = np.ones((2, 3), np.float32)


def test_all_that_is_missing_is_named_at_once() -> None:
    """A parser can go on with zeros until then."""
    ledger = Ledger({"here": ONES})

    assert not ledger.take("there", 2, 3).any()
    ledger.take("elsewhere", 1)
    with pytest.raises(KeyMissing, match=r"missing_key: .* there, elsewhere,"):
        ledger.check()


def test_what_nobody_asked_for_is_told_by_its_name_in_the_file() -> None:
    """Used and unused keys are those of the file."""
    ledger = Ledger({"bert.used": ONES, "bert.left": ONES}, without_prefix("bert."))

    ledger.take("used", 2, 3)

    (finding,) = ledger.unused()
    assert (finding.severity, finding.code) == ("warning", "unused_key")
    assert "bert.left" in finding.message
    assert ledger.used_keys() == {"bert.used"}
    ledger.check()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    """They would make every answer of the batch's row nonsense."""
    ledger = Ledger({"bad": np.full(3, value, np.float32)})

    with pytest.raises(BadCheckpoint, match="bad has NaN or infinity"):
        ledger.take("bad", 3)


def test_another_shape_is_refused() -> None:
    """With both shapes in the message."""
    with pytest.raises(BadCheckpoint, match=r"x has shape \[2, 3\], expected \[3, 2\]"):
        Ledger({"x": ONES}).take("x", 3, 2)


def test_a_copy_must_be_one() -> None:
    """Libraries save shared tensors twice; the second is used as well if it is the same."""
    ledger = Ledger({"x": ONES, "same": ONES.copy(), "other": 2 * ONES})
    found = ledger.take("x", 2, 3)

    ledger.take_copy("same", found)
    ledger.take_copy("not there", found)
    with pytest.raises(BadCheckpoint, match="other differs"):
        ledger.take_copy("other", found)
    assert ledger.used_keys() == {"x", "same"}
    ledger.check()


def test_one_tensor_under_two_names_is_refused() -> None:
    """With and without the prefix: which of them counts is not known."""
    with pytest.raises(BadCheckpoint, match="old and its new name"):
        Ledger({"bert.x": ONES, "x": ONES}, without_prefix("bert."))
