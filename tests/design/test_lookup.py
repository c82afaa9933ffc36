import numpy as np
import pyarrow as pa
import pytest

from bigmm.design.levels.lookup import IntegerIndex, ValueIndex

WIDE = 3 * np.arange(100_000) - 7


@pytest.mark.parametrize(
    ("levels", "how"),
    [
        ([-2, -1, 0, 1, 2], "gapless"),
        ([7], "gapless"),
        ([5, 3, 4], "table"),
        ([1, 3, 10], "table"),
        ([-(10**12), 0, 10**15], "slots"),
        ([10**15, -(10**12), 0], "slots"),
        (WIDE.tolist(), "ranks"),
        ([], "table"),
    ],
)
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_integers_are_numbered_in_the_order_given(levels, how, kind):
    index = IntegerIndex(np.array(levels, np.int64))
    assert index.kind == how or not levels
    bounds = np.iinfo(kind)
    inside = [level for level in levels if bounds.min <= level <= bounds.max]
    keys = [*inside[::-1], -3, 3, 8, 11, bounds.max, bounds.min, *inside]
    out = np.empty(len(keys), np.int32)
    index.find(np.array(keys, kind), out)
    place = {level: number for number, level in enumerate(levels)}
    assert out.tolist() == [place.get(key, -1) for key in keys]


def test_values_are_numbered_in_the_order_given():
    out = np.empty(4, np.int32)
    ValueIndex(pa.array(["b", "a"])).find(pa.array(["a", "c", None, "b"]), out)
    assert out.tolist() == [1, -1, -1, 0]
