"""Sets of rows of integers as keys: the rows of a set, in order, whatever is joined with what."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigmm.design.levels.distinct import DistinctRows
from bigmm.design.levels.packed import pack, union

pytestmark = pytest.mark.interpreted

ROWS = st.lists(st.tuples(st.integers(-900, 900), st.integers(0, 3), st.integers(10**6, 10**6 + 50)), max_size=40)


def packed(rows):
    return pack(list(np.array(rows, np.int64).reshape(len(rows), 3).T))


@given(ROWS, ROWS)
def test_a_union_has_the_rows_of_both_in_order(first, second):
    both = union(packed(first), packed(second))
    assert list(zip(*(column.tolist() for column in both.columns()), strict=True)) == sorted({*first, *second})


def test_ranges_that_need_too_many_bits_are_refused():
    far = np.array([0, 2**40])
    assert pack([far, far]) is None
    near = pack([far, np.array([0, 1])])
    assert union(near, pack([np.array([5]), np.array([2**30])])) is None
    assert len(union(near, pack([np.array([5]), np.array([2**20])]))) == 3


def folded(lanes):
    """Rows as a pass finds them: lanes of tables, merged one after the other."""
    total = None
    for lane in lanes:
        summary = DistinctRows(("a", "b"))
        for rows in lane:
            columns = dict(zip("ab", map(pa.array, zip(*rows, strict=True)), strict=True))
            summary = summary.update(pa.table(columns), "here")
        total = summary if total is None else total.merge(summary)
    table = total.table()
    return sorted(zip(*(table.column(name).to_pylist() for name in "ab"), strict=True)), total


def test_rows_are_found_whatever_their_range_and_missing_ones_are_left_out():
    wide = (2**62, -(2**61))
    lanes = [[[(1, 2), (3, None), (1, 2)], [(5, 2**40)]], [[wide, (1, 2)]], [[(2**33, 7)], [(-4, 2**41)]]]
    expected = sorted({row for lane in lanes for rows in lane for row in rows if None not in row})
    tables, total = folded(lanes)
    assert tables == expected
    assert total.rows == 8
    tables, total = folded([[[(i % 50, i % 7) for i in range(500)]] * 3, [[(i % 60, i % 7) for i in range(500)]]])
    assert tables == sorted({(i % 60, i % 7) for i in range(500)} | {(i % 50, i % 7) for i in range(500)})
    assert not total.tables
