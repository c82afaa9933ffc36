import pickle

import numpy as np
import pytest

from bigmm.accumulate import merge
from bigmm.errors import VersionError
from tests.accumulate.test_fold import assert_close, same_bits
from tests.accumulate.twins import accumulate, make_chunk, make_layout, random_model, rows_slice


def halves(seed=3, **options):
    model = random_model(seed, n=200, **options)
    parts = [rows_slice(model.chunk, slice(0, 80)), rows_slice(model.chunk, slice(80, 200))]
    return model, [accumulate(model.layout, [part]) for part in parts]


def test_merge_is_commutative_to_the_bit_and_associative_to_rounding():
    model, (a, b) = halves(weighted=True, offset=True)
    assert same_bits(merge(a, b), b.merge(a))
    c = accumulate(model.layout, [model.chunk])
    assert_close(merge(merge(a, b), c), merge(a, merge(b, c)))


def test_merge_leaves_its_parts_alone():
    _, (a, b) = halves()
    before = pickle.loads(pickle.dumps(a))
    merge(a, b)
    assert same_bits(a, before)


@pytest.mark.parametrize("weighted", [False, True])
def test_subtract_undoes_merge(weighted):
    _, (a, b) = halves(weighted=weighted)
    assert_close(merge(a, b).subtract(b), a, 1e-11)


def test_levels_emptied_by_subtraction_are_exactly_zero():
    layout = make_layout(("x",), [0, 1], [(0, (0, 1))], (4,))
    rng = np.random.default_rng(0)
    parts = [make_chunk([rng.normal(size=50)], rng.normal(size=50), [rng.integers(*r, 50)]) for r in ((0, 3), (2, 4))]
    a, b = (accumulate(layout, [part]) for part in parts)
    left = merge(a, b).subtract(b)
    assert left.counts[0][3] == 0
    assert not left.records[0][3].any()


def test_dropped_rows_add_up():
    layout = make_layout((), [0], [], ())
    a = accumulate(layout, [make_chunk([], [1.0], [], dropped=(("x", 2), ("y", 1)))])
    b = accumulate(layout, [make_chunk([], [2.0], [], dropped=(("y", 4),))])
    both = merge(a, b)
    assert both.dropped == {"x": 2, "y": 5}
    assert (both.n, both.rows_read) == (2, 9)
    assert both.subtract(b).dropped == {"x": 2, "y": 1}


def test_sums_of_different_models_are_refused():
    layout = make_layout((), [0], [(0, (0,))], (3,))
    chunk = make_chunk([], [1.0, 2.0], [[0, 1]])
    a = accumulate(layout, [chunk])
    others = [
        accumulate(layout, [chunk], np.array([0.0, 1.0])),
        accumulate(make_layout((), [0], [(0, (0,))], (4,)), [chunk]),
    ]
    for other in others:
        with pytest.raises(
            VersionError, match=r"sums of different models cannot be combined.* same DesignSpec and shift"
        ):
            a.merge(other)


def test_taking_away_rows_that_were_never_there_is_refused():
    layout = make_layout((), [0], [(0, (0,))], (3,))
    a = accumulate(layout, [make_chunk([], [1.0, 2.0], [[0, 1]])])
    b = accumulate(layout, [make_chunk([], [1.0], [[2]])])
    with pytest.raises(VersionError, match="cannot take rows away that were never added"):
        a.subtract(b)


def test_nbytes_counts_everything():
    _, (a, _) = halves()
    assert a.nbytes > sum(r.nbytes for r in a.records) + sum(p.total()[0].nbytes for p in a.pairs.values())
