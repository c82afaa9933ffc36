"""Every structure: its covariance matrix, its derivatives, its search coordinates."""

import numpy as np
import pytest

from bigmm.covariance import STRUCTURES, covariance

CASES = [(name, k) for name in STRUCTURES for k in (2, 3, 6)]


def drawn(name, k, seed=1):
    """A structure, a search point of it with positive scales, and sizes of its columns."""
    rng, structure = np.random.default_rng(seed), covariance(name, k)
    point = structure.canonical(rng.normal(size=structure.n_parameters))
    return structure, point, rng.uniform(0.5, 2.0, k)


def expected_correlation(name, k, rho):
    i = np.arange(k)
    return {"diag": np.eye(k), "cs": np.where(i[:, None] == i, 1.0, rho), "ar1": rho ** np.abs(i[:, None] - i)}[name]


@pytest.mark.parametrize("rho", [-0.15, 0.0, 0.4, 0.999, 1.0])
@pytest.mark.parametrize("k", [2, 5, 50])
@pytest.mark.parametrize(("name", "scales"), [("diag", "k"), ("cs", "k"), ("ar1", "one")])
def test_the_matrix_is_that_of_the_definition(name, scales, k, rho):
    rho = max(rho, -0.8 / (k - 1))
    sd = np.linspace(0.5, 2.0, k) if scales == "k" else np.full(k, 0.7)
    structure = covariance(name, k)
    theta = np.concatenate([sd if scales == "k" else sd[:1], [] if name == "diag" else [rho]])
    lam = structure.lam(theta)
    assert not np.triu(lam, 1).any() and np.all(np.diagonal(lam) >= 0.0)
    expected = expected_correlation(name, k, rho) * np.outer(sd, sd)
    np.testing.assert_allclose(lam @ lam.T, expected, rtol=1e-11, atol=1e-11)
    assert structure.correlation(theta) == (None if name == "diag" else rho)


@pytest.mark.parametrize(("name", "k"), CASES)
def test_directions_are_the_derivatives_of_lambda(name, k):
    structure, point, units = drawn(name, k)
    theta, step = structure.from_search(point, units), 1e-6
    for unit, direction in zip(np.eye(len(theta)), structure.directions(theta), strict=True):
        difference = (structure.lam(theta + step * unit) - structure.lam(theta - step * unit)) / (2.0 * step)
        np.testing.assert_allclose(direction, difference, atol=1e-7)


@pytest.mark.parametrize(("name", "k"), CASES)
def test_gradient_and_curvature_of_a_function_of_lambda(name, k):
    """f = <G, lambda lambda'> + <W, lambda>, whose derivatives by lambda are known."""
    structure, point, units = drawn(name, k)
    theta, rng, step = structure.from_search(point, units), np.random.default_rng(2), 1e-6
    w, g = rng.normal(size=(2, k, k))
    g = g + g.T

    def value(at):
        lam = structure.lam(at)
        return float((g * (lam @ lam.T)).sum() + (w * lam).sum())

    def gradient(at):
        return structure.pullback(at, 2.0 * g @ structure.lam(at) + w)

    moves = step * np.eye(len(theta))
    slopes = [(value(theta + move) - value(theta - move)) / (2.0 * step) for move in moves]
    np.testing.assert_allclose(gradient(theta), slopes, rtol=1e-5, atol=1e-5)
    curvature = [(gradient(theta + move) - gradient(theta - move)) / (2.0 * step) for move in moves]
    found = structure.second_order(theta, g, 2.0 * g @ structure.lam(theta) + w)
    np.testing.assert_allclose(found, curvature, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "k"), CASES)
def test_search_coordinates_lead_there_and_back(name, k):
    structure, point, units = drawn(name, k)
    theta = structure.from_search(point, units)
    np.testing.assert_allclose(structure.to_search(theta, units), point, rtol=1e-9)
    assert np.all(theta >= structure.lower) and np.all(theta <= structure.upper)
    first, second = structure.slopes(point, units)
    for i, move in enumerate(1e-5 * np.eye(len(point))):
        ahead, behind = (structure.from_search(point + sign * move, units)[i] for sign in (1, -1))
        assert (ahead - behind) / 2e-5 == pytest.approx(first[i], abs=1e-6)
        assert (ahead - 2.0 * theta[i] + behind) / 1e-10 == pytest.approx(second[i], abs=1e-4)


@pytest.mark.parametrize(("name", "k"), CASES)
def test_a_change_of_sign_is_the_same_model(name, k):
    structure, point, units = drawn(name, k)
    even = structure.search_lower == 0.0
    for flipped in np.flatnonzero(even):
        sign = np.ones(len(point))
        if structure.is_invariant:  # a whole column of lambda
            sign[structure.elements[1] == structure.elements[1][flipped]] = -1.0
        else:
            sign[flipped] = -1.0
        lams = [structure.lam(structure.from_search(each, units)) for each in (point, sign * point)]
        np.testing.assert_allclose(lams[0] @ lams[0].T, lams[1] @ lams[1].T, atol=1e-14)
        np.testing.assert_array_equal(structure.canonical(sign * point), point)


@pytest.mark.parametrize(("name", "k"), CASES)
def test_start_and_scale_keep_standard_deviations(name, k):
    structure, _, _ = drawn(name, k)
    sd = np.full(k, 0.6)
    theta = structure.start(np.diag(sd))
    for factor in (1.0, 0.2):
        lam = structure.lam(structure.scaled(theta, factor))
        np.testing.assert_allclose(np.linalg.norm(lam, axis=1), factor * sd, rtol=1e-14)


def test_a_correlation_at_its_bound_is_at_the_boundary():
    structure = covariance("cs", 3)
    assert structure.at_boundary(np.array([1.0, 0.0, 1.0, 0.3])).tolist() == [False, True, False, False]
    assert structure.at_boundary(np.array([1.0, 1.0, 1.0, -0.5 + 1e-5])).tolist() == [False, False, False, True]
    assert covariance("ar1", 4).at_boundary(np.array([1.0, 1.0 - 1e-5])).tolist() == [False, True]


def test_one_column_has_a_variance_and_nothing_else():
    for name in STRUCTURES:
        assert covariance(name, 1).n_parameters == 1
