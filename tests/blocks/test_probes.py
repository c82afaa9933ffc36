"""Probes are keyed by seed, name and levels of each term: what two models share, and what stays when they grow."""

import numpy as np

from bigmm.blocks.iterative import factor as iterative
from bigmm.blocks.iterative import sampled
from bigmm.blocks.iterative.probes import deflation_basis, keys_of, make_probes
from bigmm.blocks.iterative.structure import analyse_iterative
from bigmm.objective.krylov import PRECISION
from tests.oracle import Rows, Shape

NONE = np.zeros((50, 0))
MOVIES = ("movie", 50, 1)


def signs(keys, size=4, seed=1):
    r = sum(levels * width for _, levels, width in keys)
    return make_probes(np.zeros((r, 0)), r, size, seed, keys).vectors


def test_more_probes_keep_the_first_ones():
    np.testing.assert_array_equal(signs((MOVIES,), 9)[:, :4], signs((MOVIES,), 4))


def test_models_that_share_a_term_share_its_signs():
    both = signs((("month", 7, 1), MOVIES))
    np.testing.assert_array_equal(both[7:], signs((MOVIES,)))


def test_a_slope_leaves_the_signs_of_the_intercept_alone():
    wide = signs((("movie", 50, 2),)).reshape(50, 2, -1)
    np.testing.assert_array_equal(wide[:, 0], signs((MOVIES,)))
    assert not np.array_equal(wide[:, 1], wide[:, 0])


def test_name_levels_seed_and_number_make_different_signs():
    first = signs((MOVIES,))
    assert set(np.unique(first)) == {-1.0, 1.0}
    for other in (signs((("film", 50, 1),)), signs((MOVIES,), seed=2)):
        assert abs((first * other).mean()) < 0.5
    assert abs((first[:, 0] * first[:, 1]).mean()) < 0.5


def test_the_basis_is_taken_out():
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((50, 3)))[0]
    probes = make_probes(basis, 50, 5, 1, (MOVIES,))
    np.testing.assert_allclose(basis.T @ probes.vectors, 0.0, atol=1e-12)


def test_enlarging_solves_the_new_probes_only(monkeypatch):
    rows = Rows.draw(Shape(((60, 1, False), (40, 2, False)), n=900), 5)
    lams = rows.covariances.working(rows.gram, np.where(rows.covariances.lower == 0, 0.6, 0.2))
    factor = iterative.factorize_iteratively(analyse_iterative(rows.gram), lams, PRECISION, with_y=True)
    operator, keys = factor.operator, keys_of(factor.structure)
    basis = deflation_basis(operator, 6, 1, keys=keys)
    few, many = (make_probes(basis, operator.size, n, 2, keys) for n in (8, 24))
    small, whole = (sampled.sample(factor, probes) for probes in (few, many))

    solve, solved = sampled.conjugate_gradients, []
    monkeypatch.setattr(
        sampled, "conjugate_gradients", lambda op, rhs, *a: solved.append(rhs.shape[1]) or solve(op, rhs, *a)
    )
    grown = sampled.with_more_probes(small, many)
    assert solved == [16]
    np.testing.assert_allclose(grown.logdet_each, whole.logdet_each, rtol=1e-7)
    np.testing.assert_allclose(grown.logdet_each[:8], small.logdet_each, rtol=1e-12)
    assert abs(grown.logdet_z - whole.logdet_z) < 1e-4
    np.testing.assert_allclose(grown.solved.x, whole.solved.x, atol=1e-4)
    np.testing.assert_allclose(grown.solved.image, whole.solved.image, atol=1e-4)


def test_terms_of_few_columns_are_in_the_basis_with_all_of_them():
    """So they are traced exactly; what is left of the basis goes to the largest eigenvalues of the others."""
    rows = Rows.draw(Shape(((80, 1, False), (60, 1, False), (5, 1, False)), n=900), 5)
    lams = rows.covariances.working(rows.gram, np.full(rows.covariances.n_theta, 0.6))
    factor = iterative.factorize_iteratively(analyse_iterative(rows.gram), lams, PRECISION, with_y=True)
    assert [t.n_levels for t in factor.structure.tail] == [60, 5]
    basis = deflation_basis(factor.operator, 12, 1, keys=keys_of(factor.structure))
    np.testing.assert_allclose(basis.T @ basis, np.eye(12), atol=1e-10)
    np.testing.assert_allclose(basis[60:] @ basis[60:].T, np.eye(5), atol=1e-10)
    probes = make_probes(basis, 65, 4, 1, keys_of(factor.structure))
    assert not probes.vectors[60:].any()
    # never more than two thirds of it
    small = deflation_basis(factor.operator, 6, 1)
    assert np.sum(small[60:] ** 2) < 4.9
