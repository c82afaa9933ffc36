"""Sums over whole trees are the accumulator's, whatever the shards; levels are numbered by the rows that are there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmm.accumulate.chains import chain_sums
from bigmm.accumulate.fold import Accumulator
from bigmm.design.layout import DesignChunk, Grouping, Layout, RandomTerm

PUPILS, CLASSES, SCHOOLS = 60, 20, 5
SHIFT = np.array([0.0, 0.25, 0.0, 1.5])


def layout():
    """y ~ x + (1 + x | pupil) + (1 | class) + (1 | school), groupings in another order than the terms."""
    sizes = {"school": SCHOOLS, "class": CLASSES, "pupil": PUPILS}
    groupings = tuple(Grouping(name, (name,), np.arange(q)) for name, q in sizes.items())
    terms = (
        RandomTerm("pupil", 2, (0, 1), ("(Intercept)", "x")),
        RandomTerm("class", 1, (0,), ("(Intercept)",)),
        RandomTerm("school", 0, (0,), ("(Intercept)",)),
    )
    return Layout(("1", "x", "t"), ("Intercept", "x"), (0, 1), (), terms, groupings, np.array([1.0, 0.0]), "y")


def chunk(rng, pupils, weighted, n=90):
    pupil = rng.choice(pupils, n).astype(np.int32)
    refs = (pupil // 12).astype(np.int32), (pupil // 3).astype(np.int32), pupil
    w = rng.choice([0.0, 0.5, 2.0], n) if weighted else None
    return DesignChunk(rng.normal(size=(2, n)), rng.normal(size=n), refs, w, rng.normal(size=n), n + 2, (("y", 2),))


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.booleans())
def test_shards_of_whole_trees_add_up_to_the_whole(seed, weighted):
    rng = np.random.default_rng(seed)
    shards = [np.arange(0, 24), np.arange(24, 60), np.zeros(0, np.int64)]
    pieces = [[chunk(rng, own, weighted) for _ in range(3)] if len(own) else [] for own in shards]
    whole = Accumulator(layout(), SHIFT)
    for piece in (piece for own in pieces for piece in own):
        whole.add(piece)
    expected = whole.freeze()
    found = [chain_sums(layout(), (0, 1, 2), SHIFT, own) for own in pieces]
    np.testing.assert_allclose(sum(sums.gram for sums in found), expected.gram, atol=1e-10)
    assert sum(sums.n for sums in found) == expected.n
    assert sum(sums.rows_read for sums in found) == expected.rows_read == 6 * 92
    assert sum(dict(sums.dropped).get("y", 0) for sums in found) == 12
    assert sum(sums.sum_log_w for sums in found) == pytest.approx(expected.sum_log_w)
    for term in range(3):
        numbers = np.concatenate([sums.levels_of(term) for sums in found])
        assert sorted(numbers.tolist()) == np.flatnonzero(expected.counts[term]).tolist()
        records = np.concatenate([sums.records_of(term) for sums in found])
        np.testing.assert_allclose(records, expected.records[term][numbers, :, :4], atol=1e-10)
    for sums in found[:2]:
        pupil, group, school = (sums.levels_of(term) for term in range(3))
        np.testing.assert_array_equal(group[sums.parents_of(0)], pupil // 3)
        np.testing.assert_array_equal(school[sums.parents_of(1)], group // 4)
        ((_, nearest), (_, top)) = sums.ancestors_of(0)
        np.testing.assert_array_equal(nearest, sums.parents_of(0))
        np.testing.assert_array_equal(school[top], pupil // 12)


def test_records_hold_the_products_with_what_contains_a_level():
    """Z_pupil'W Z_class of a pupil is its record's first column, as the general accumulator finds by pairs."""
    rng = np.random.default_rng(1)
    piece = chunk(rng, np.arange(PUPILS), True)
    sums = chain_sums(layout(), (0, 1, 2), SHIFT, [piece])
    whole = Accumulator(layout(), SHIFT)
    whole.add(piece)
    pairs = whole.freeze().pairs[0, 1]
    place = {number: at for at, number in enumerate(sums.levels_of(0).tolist())}
    keys, sums_of_pairs = pairs.total()
    for pupil, group, block in zip(*np.divmod(keys, pairs.n_levels[1]), sums_of_pairs, strict=True):
        own = place[int(pupil)]
        assert sums.levels_of(1)[sums.parents_of(0)[own]] == group
        np.testing.assert_allclose(sums.records_of(0)[own][:, :1], block, atol=1e-12)
