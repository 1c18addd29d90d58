import numpy as np
import pytest
import torch

from workers.grouped.batch_tables import BatchTables

CPU = torch.device("cpu")


def tables_of(*tables: list[int] | list[list[int]]) -> BatchTables:
    made = BatchTables(CPU)
    for number, table in enumerate(tables):
        assert made.add(np.array(table, dtype=np.int32)) == number
    return made


def test_tables_are_read_as_they_were_added() -> None:
    """Of any shape, from one buffer."""
    tables = tables_of([1, 2, 3], [[4, 5, 6], [7, 8, 9]])

    tables.upload()

    assert tables[0].tolist() == [1, 2, 3]
    assert tables[1].tolist() == [[4, 5, 6], [7, 8, 9]]
    assert tables[0].untyped_storage().data_ptr() == tables[1].untyped_storage().data_ptr()


def test_tables_do_not_come_to_the_device_when_an_operator_reads_them() -> None:
    """It may be on a stream of its own, which the others that read them do not wait for."""
    tables = tables_of([1])

    with pytest.raises(AssertionError, match="not on the device yet"):
        tables[0]


def test_another_batch_is_read_where_the_first_one_was() -> None:
    """As a captured pass reads it."""
    tables, others = tables_of([1, 2], [[3]]), tables_of([4, 5], [[6]])
    tables.upload()
    before = tables[0], tables[1]

    tables.overwrite(others)

    assert [table.tolist() for table in before] == [[4, 5], [[6]]]


def test_another_layout_is_refused() -> None:
    """It would be read at wrong places."""
    tables = tables_of([1, 2])
    tables.upload()

    with pytest.raises(AssertionError):
        tables.overwrite(tables_of([[1, 2]]))
