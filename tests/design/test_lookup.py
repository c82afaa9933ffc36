import numpy as np
import pyarrow as pa
import pytest

from bigmm.design.lookup import IntegerIndex, ValueIndex


@pytest.mark.parametrize(
    ("levels", "gapless", "tabulated"),
    [
        ([-2, -1, 0, 1, 2], True, False),
        ([7], True, False),
        ([5, 3, 4], False, True),
        ([1, 3, 10], False, True),
        ([-(10**12), 0, 10**15], False, False),
        ([], False, True),
    ],
)
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_integers_are_numbered_in_the_order_given(levels, gapless, tabulated, kind):
    index = IntegerIndex(np.array(levels, np.int64))
    assert (index.gapless, bool(index.table.size)) == (gapless, tabulated)
    bounds = np.iinfo(kind)
    inside = [level for level in levels if bounds.min <= level <= bounds.max]
    keys = [*inside[::-1], -3, 3, 8, 11, bounds.max, bounds.min, *inside]
    out = np.empty(len(keys), np.int32)
    index.find(np.array(keys, kind), out)
    assert out.tolist() == [levels.index(key) if key in levels else -1 for key in keys]


def test_values_are_numbered_in_the_order_given():
    out = np.empty(4, np.int32)
    ValueIndex(pa.array(["b", "a"])).find(pa.array(["a", "c", None, "b"]), out)
    assert out.tolist() == [1, -1, -1, 0]
