"""The choice of a shift, and sums about it against sums of columns in longdouble."""

import numpy as np
import pytest

from bigmm.accumulate import CrossProducts, assemble, first_shift, next_shift
from bigmm.accumulate.fold import Accumulator
from bigmm.design.layout import DesignChunk
from tests.accumulate.twins import make_chunk, make_layout

N, LEVELS = 300, 9
RNG = np.random.default_rng(4)
U, V, D = RNG.normal(size=N), RNG.normal(size=N), (RNG.random(N) < 0.4).astype(float)
REFS = RNG.integers(0, LEVELS, N)
Y = RNG.normal(size=N) + U


def sums(layout, chunk, shift) -> CrossProducts:
    accumulator = Accumulator(layout, shift)
    accumulator.add(chunk)
    return accumulator.freeze()


def brought_back(cross: CrossProducts, columns: int) -> np.ndarray:
    """(c + 1, c + 1) sums of products of [1, columns, y] themselves."""
    back = cross.shift.back
    keep = np.append(np.arange(columns), len(back) - 1)
    return (back.T @ cross.gram @ back)[np.ix_(keep, keep)]


def cases(s):
    """{name: (columns, fixed columns, terms, one)} about the origin s."""
    x, z = U + s, V + s
    return {
        "slope without the constant": ({"x": x}, [0, 1], [(0, (1,))], None),
        "slope with and without": ({"x": x}, [0, 1], [(0, (0, 1)), (1, (1,))], None),
        "product": ({"x": x, "z": z, "x:z": x * z}, [0, 1, 2, 3], [(0, (0,))], None),
        "factor": ({"d": D, "x": x, "d:x": D * x}, [0, 1, 2, 3], [(0, (0, 2))], None),
        "no margin": ({"d:x": D * x, "e:x": (1 - D) * x}, [0, 1, 2], [(0, (0,))], None),
        "before the constant": ({"x": x, "d": D, "e": 1 - D}, [1, 2, 3], [(0, (0,))], np.array([0.0, 1.0, 1.0])),
        "no constant": ({"x": x, "z": z}, [1, 2], [(0, (1, 2))], None),
    }


@pytest.mark.parametrize("origin", [0.0, 10.0, 1e6])
@pytest.mark.parametrize("name", cases(0.0))
def test_sums_come_back(name, origin):
    columns, fixed, terms, one = cases(origin)[name]
    layout = make_layout(tuple(columns), fixed, terms, (LEVELS, LEVELS), one=one)
    chunk = make_chunk(list(columns.values()), Y, [REFS, REFS[::-1]])
    cross = sums(layout, chunk, first_shift(layout, chunk))
    raw = np.column_stack([np.ones(N), *columns.values(), Y]).astype(np.longdouble)
    expected = np.asarray(raw.T @ raw, float)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(brought_back(cross, len(columns) + 1) / scale, expected / scale, atol=1e-12)
    gram = assemble(cross, layout).gram
    own = gram.xy[:-1, :-1]
    sizes = np.sqrt(np.diagonal(own))
    assert gram.active.all() and np.linalg.cond(own / np.outer(sizes, sizes)) < 1e3
    for term, (_, covariates) in zip(gram.terms, terms, strict=True):
        z = raw[:, list(covariates)]
        block = np.asarray(z.T @ z, float)
        found = term.basis.T @ term.diagonal.sum(axis=0) @ term.basis
        np.testing.assert_allclose(found, block, rtol=1e-12)


def test_near_zero_nothing_changes():
    """Only numbers are taken off, and no column stands twice."""
    columns, fixed, terms, _ = cases(10.0)["factor"]
    layout = make_layout(tuple(columns), fixed, terms, (LEVELS, LEVELS))
    shift = first_shift(layout, make_chunk(list(columns.values()), Y, [REFS, REFS]))
    assert not shift.copies and not shift.products and not shift.order
    chunk = make_chunk(list(columns.values()), Y, [REFS, REFS])
    assert shift.prepared(chunk) is chunk


def test_rows_unlike_the_first_ones_are_summed_again():
    """The head is near zero, the others at a million: the second shift is near the mean of all."""
    layout = make_layout(("x",), [0, 1], [(0, (0,))], (LEVELS,))
    head, rest = make_chunk([U], Y, [REFS]), make_chunk([np.r_[U, U + 1e9]], np.r_[Y, Y + 1e9], [np.r_[REFS, REFS]])
    assert next_shift(layout, head, sums(layout, head, first_shift(layout, head))) is None
    shifted = make_chunk([U + 1e9], Y + 1e9, [REFS])
    cross = sums(layout, shifted, first_shift(layout, head))
    again = next_shift(layout, head, cross)
    assert again is not None
    np.testing.assert_allclose(again.numbers[1:], [1e9, 1e9], rtol=1e-6)
    assert next_shift(layout, head, sums(layout, shifted, again)) is None
    # a column with two humps is not far from its mean
    assert next_shift(layout, head, sums(layout, rest, first_shift(layout, rest))) is None


def test_columns_that_have_more_to_do_with_each_other_than_in_the_head():
    layout = make_layout(("x", "z"), [0, 1, 2], [(0, (0,))], (LEVELS,))
    head, chunk = make_chunk([U, V], Y, [REFS]), make_chunk([U, U + 1e-5 * V], Y, [REFS])
    cross = sums(layout, chunk, first_shift(layout, head))
    again = next_shift(layout, head, cross)
    assert again is not None and again.order == (2,)
    second = sums(layout, chunk, again)
    assert second.gram[2, 2] == pytest.approx(1e-10 * V.var() * N, rel=0.05)
    assert next_shift(layout, head, second) is None


def test_rows_without_weight_do_not_count():
    layout = make_layout(("x",), [0, 1], [(0, (0,))], (LEVELS,))
    chunk = make_chunk([np.r_[U + 1e9, U]], np.r_[Y + 1e9, Y], [np.r_[REFS, REFS]], w=np.r_[np.zeros(N), np.ones(N)])
    assert isinstance(chunk, DesignChunk)
    np.testing.assert_allclose(first_shift(layout, chunk).numbers[1:], [U.mean(), Y.mean()], rtol=1e-12)
