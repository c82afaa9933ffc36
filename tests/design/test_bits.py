"""Sets of integers as bits: members, unions and ranks are those of a set."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigmm.design.levels.bits import NOTHING, ROOMY, is_increasing, number_by_rank, ranks
from bigmm.design.levels.distinct import DistinctRows

pytestmark = pytest.mark.interpreted

NUMBERS = st.lists(st.integers(-5000, 5000), min_size=1, max_size=60)


@given(st.lists(NUMBERS, min_size=1, max_size=4), NUMBERS)
def test_bits_are_a_set(seen, asked):
    half = len(seen) // 2
    parts = [NOTHING, NOTHING]
    for number, keys in enumerate(seen):
        side = int(number >= half)
        parts[side] = parts[side].with_keys([np.array(keys, np.int64)])
    union = parts[0].merge(parts[1])
    members = sorted({key for keys in seen for key in keys})
    assert union.values().tolist() == members
    assert is_increasing(union.values())
    out = np.empty(len(asked), np.int32)
    number_by_rank(np.array(asked), union.low, union.words, ranks(union.words), out)
    assert out.tolist() == [members.index(key) if key in members else -1 for key in asked]


def test_a_set_is_not_changed_by_what_is_made_of_it():
    first = NOTHING.with_keys([np.array([3, 5])])
    first.with_keys([np.array([4])])
    first.merge(NOTHING.with_keys([np.array([900])]))
    assert first.values().tolist() == [3, 5]


def folded(lanes):
    """Levels as a pass finds them: lanes of partitions, each a list or an Arrow array."""
    summaries = []
    for lane in lanes:
        summary = DistinctRows(("g",))
        for keys in lane:
            summary = summary.update(pa.table({"g": keys if isinstance(keys, pa.Array) else pa.array(keys)}), "here")
        summaries.append(summary)
    total = summaries[0]
    for summary in summaries[1:]:
        total = total.merge(summary)
    return sorted(total.table().column("g").combine_chunks().to_pylist()), total


def test_levels_far_apart_are_listed_and_the_rest_are_bits():
    far = 10 * ROOMY
    found, total = folded([[[1, 5, None], [far, far + 1]], [[far + 2], [2, 5]]])
    assert found == [1, 2, 5, far, far + 1, far + 2]
    assert len(total.bits.words) < 100
    assert total.rows == 8


def test_every_kind_of_integer_column_is_found():
    unsigned = pa.array([2**40, None], pa.uint64())
    coded = pa.array([7, 9, 7], pa.int32()).dictionary_encode()
    assert folded([[pa.array([3], pa.int8()), unsigned], [coded, pa.array([], pa.int64())]])[0] == [3, 7, 9, 2**40]
