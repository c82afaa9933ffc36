"""Variances of levels and rows under the iterative solver, against the exact factor: by solves and by probes."""

import numpy as np
import pytest

from bigmm.blocks.exact.inverse import selected_inverse
from bigmm.blocks.exact.rows import row_quadratics
from bigmm.blocks.iterative import conditional
from bigmm.blocks.iterative.probes import keys_of, make_probes
from tests.blocks.test_iterative import SHAPES, Both

PROBES = 64


@pytest.fixture(scope="module", params=list(SHAPES))
def both(request):
    return Both(SHAPES[request.param])


@pytest.fixture(scope="module")
def estimator(both):
    keys = keys_of(both.factor.structure)
    probes = make_probes(both.factor.probes.basis, both.operator.size, PROBES, 3, keys)
    return conditional.row_estimator(both.factor, probes)


@pytest.fixture(scope="module")
def rows(both):
    """Rows with levels and covariates of all terms, some levels unseen, and fixed covariates."""
    rng, n = np.random.default_rng(4), 300
    refs = tuple(rng.integers(-1, t.n_levels, n) for t in both.gram.terms)
    z = tuple(rng.standard_normal((n, t.width)) for t in both.gram.terms)
    return rng.standard_normal((n, len(both.gram.xy) - 1)), refs, z


@pytest.fixture(scope="module")
def truth(both):
    return selected_inverse(both.exact, with_fixed=False, covariances=True).covariances


def test_rows_are_exact_by_solves(both, rows):
    np.testing.assert_allclose(conditional.exact_rows(both.factor, *rows), row_quadratics(both.exact, *rows), rtol=1e-6)


def test_levels_are_exact_by_solves(both, truth):
    for term, blocks in enumerate(truth):
        z = np.random.default_rng(term).standard_normal(blocks.shape[1])
        levels = np.arange(0, len(blocks), 3)
        mine = conditional.one_term(both.factor, term, levels, z)
        expected = np.einsum("a,lab,b->l", z, blocks[levels], z)
        np.testing.assert_allclose(conditional.exact_rows(both.factor, None, *mine), expected, rtol=1e-6)


def test_the_sparse_norm_is_that_of_the_swept_row(both, rows):
    _, refs, z = rows
    for ours, swept in zip(
        conditional.chain_and_norm(both.factor, refs, z), conditional._swept_norms(both.factor, refs, z), strict=True
    ):
        np.testing.assert_allclose(ours, swept, rtol=1e-10)


def test_rows_are_estimated_within_their_errors(both, estimator, rows):
    exact = row_quadratics(both.exact, *rows)
    value, error = estimator.rows(*rows)
    off = (value - exact) / error
    assert np.all(error > 0) and np.median(error / exact) < 0.1
    assert 0.4 < np.sqrt(np.mean(off**2)) < 1.8  # one set of probes serves all rows, so their errors go together
    assert np.mean(np.abs(off) < 5.0) > 0.98


def test_levels_are_estimated_within_their_errors_and_bounds(both, estimator, truth):
    lams = both.factor.operator.lams
    for term, blocks in enumerate(truth):
        directions = np.eye(blocks.shape[1])
        value, error = estimator.levels(term, directions)
        exact = np.einsum("laa->la", blocks)
        off = np.abs(value - exact) / np.maximum(error, 1e-6 * exact)
        assert np.mean(off < 4.0) > 0.97
        assert np.all(value > 0) and np.all(value <= np.diagonal(lams[term] @ lams[term].T) * (1 + 1e-12))
        assert np.median(np.abs(value / exact - 1.0)) < 0.05


def test_the_estimate_is_never_below_the_levels_own_block(both):
    """With two probes the raw estimate is wild; what is reported stays between its bounds."""
    keys = keys_of(both.factor.structure)
    none = np.zeros((both.operator.size, 0))
    wild = conditional.row_estimator(both.factor, make_probes(none, both.operator.size, 2, 0, keys))
    for place in both.factor.structure.tail:
        if place.term in both.operator.nested:
            continue
        value, _ = wild.levels(place.term, np.eye(place.width))
        own = both.operator.diagonal_blocks()[place.term]
        assert np.all(value >= np.einsum("laa->la", own) * (1 - 1e-12))


def test_the_same_rows_however_they_are_cut(estimator, rows, monkeypatch):
    x, refs, z = rows
    whole = estimator.rows(x, refs, z)
    monkeypatch.setattr(conditional, "ROWS_PER_BLOCK", 77)
    for a, b in zip(whole, estimator.rows(x, refs, z), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_few_columns_at_a_time_make_no_difference(both, estimator, rows, monkeypatch):
    """Where levels are many, probes are solved for a few at a time, and fewer are drawn."""
    monkeypatch.setattr(conditional, "PROBE_BYTES", 1)
    keys = keys_of(both.factor.structure)
    probes = make_probes(both.factor.probes.basis, both.operator.size, PROBES, 3, keys)
    narrow = conditional.row_estimator(both.factor, probes)
    for a, b in zip(estimator.rows(*rows), narrow.rows(*rows), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3)
    assert conditional.affordable_probes(both.factor) == both.factor.probes.vectors.shape[1]
