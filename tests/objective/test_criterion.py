"""The criterion and everything read off its factor equal the textbook's dense formulas."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmm.objective import Criterion
from bigmm.optimize import Problem, minimize
from tests.oracle import SHAPES, Rows, thetas
from tests.results.oracle import indicator

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def every(test):
    """A few examples of every kind of structure."""
    return pytest.mark.parametrize("kind", sorted(SHAPES))(settings(max_examples=4)(test))


def drawn(kind, data):
    model = Rows.draw(SHAPES[kind], data.draw(st.integers(0, 2**31)))
    theta = data.draw(thetas(model.covariances))
    reml = data.draw(st.booleans())
    return model, theta, Criterion(model.gram, model.covariances, reml), model.dense(theta, reml)


def finite_differences(function, theta, step=1e-6):
    moves = np.eye(len(theta)) * step
    return np.array([(function(theta + move) - function(theta - move)) / (2 * step) for move in moves])


@every
@given(st.data())
def test_criterion_and_estimates(kind, data):
    model, theta, criterion, dense = drawn(kind, data)
    found = criterion.estimates(theta)
    assert criterion.value(theta) == pytest.approx(dense.objective, rel=1e-9, abs=1e-9)
    assert found.objective == criterion.value(theta)
    np.testing.assert_allclose(found.beta[model.kept], dense.beta, **CLOSE)
    np.testing.assert_allclose(found.vcov[np.ix_(model.kept, model.kept)], dense.vcov, **CLOSE)
    assert np.isnan(found.beta[~model.kept]).all()
    assert np.isnan(found.vcov[~model.kept]).all()
    assert np.isnan(found.vcov[:, ~model.kept]).all()
    np.testing.assert_allclose([found.sigma, found.pwrss], [dense.sigma, dense.pwrss], rtol=1e-9)
    dense_logdet = np.linalg.slogdet(dense.v)[1] + np.log(model.w).sum()
    assert found.logdet_z == pytest.approx(dense_logdet, rel=1e-9, abs=1e-9)


@every
@given(st.data())
def test_conditional_modes(kind, data):
    model, theta, criterion, dense = drawn(kind, data)
    found = criterion.estimates(theta)
    np.testing.assert_allclose(np.concatenate([b.ravel() for b in found.b]), dense.b, **CLOSE)
    # u solves (Lambda'Z'WZ Lambda + I) u = Lambda'Z'W(y - X beta)
    zl = dense.z @ dense.lam
    system = zl.T @ (model.w[:, None] * zl) + np.eye(zl.shape[1])
    u = np.linalg.solve(system, zl.T @ (model.w * (model.y - dense.x @ dense.beta)))
    np.testing.assert_allclose(np.concatenate([u_j.ravel() for u_j in found.u]), u, **CLOSE)


@every
@given(st.data())
def test_conditional_covariances(kind, data):
    model, theta, criterion, dense = drawn(kind, data)
    expected, at = dense.conditional_covariance, 0
    factor = criterion.factor(theta)
    blocks = factor.conditional_covariances(criterion.residual_variance(factor))
    for (q, k, _), found in zip(model.shape.terms, blocks, strict=True):
        assert found.shape == (q, k, k)
        for block in found:
            np.testing.assert_allclose(block, expected[at : at + k, at : at + k], **CLOSE)
            at += k
    assert at == len(expected)


@every
@given(st.data())
def test_effective_degrees_of_freedom(kind, data):
    _, theta, criterion, dense = drawn(kind, data)
    px, pz = dense.hat
    total, fixed, random = criterion.effective_df(theta)
    assert total == pytest.approx(np.trace(px + pz), rel=1e-9)
    assert fixed == dense.x.shape[1] == criterion.rank
    assert random == pytest.approx(total - fixed, abs=1e-9)


@every
@given(st.data())
def test_prediction_variance(kind, data):
    model, theta, criterion, dense = drawn(kind, data)
    refs = [r.copy() for r in model.refs]
    refs[0][:5] = -1  # levels that were never seen bring their whole prior variance
    refs[-1][3:7] = -1
    found = criterion.prediction_variance(theta, np.where(model.kept, model.x_user, 0.0), tuple(refs), model.z)
    z = np.hstack([indicator(r, z, q) for (q, _, _), r, z in zip(model.shape.terms, refs, model.z, strict=True)])
    expected = dense.error_variance(dense.x, z)
    for r, z_j, lam in zip(refs, model.z, model.covariances.joint(theta), strict=True):
        expected = expected + np.where(r < 0, dense.sigma**2 * ((z_j @ lam) ** 2).sum(axis=1), 0.0)
    np.testing.assert_allclose(found, expected, **CLOSE)


@every
@given(st.data())
def test_gradient_is_the_finite_difference(kind, data):
    _, theta, criterion, _ = drawn(kind, data)
    found = criterion.evaluate(theta)
    assert found.value == criterion.value(theta)
    expected = finite_differences(criterion.value, theta)
    np.testing.assert_allclose(found.gradient, expected, rtol=1e-5, atol=2e-5 * max(1.0, np.abs(expected).max()))


def finite_hessian(criterion, theta):
    return finite_differences(lambda t: criterion.evaluate(t).gradient, theta, 1e-5)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("kind", ["one", "crossed", "nested", "one slope"])
def test_curvature_is_average_information_near_the_minimum(kind, reml):
    model = Rows.draw(SHAPES[kind], 11)
    criterion = Criterion(model.gram, model.covariances, reml)
    start = np.where(criterion.lower == 0, 1.0, 0.0)
    outcome = minimize(
        Problem(criterion.value, criterion.evaluate, criterion.lower, (start,), model.covariances.rectified), "newton"
    )
    found = criterion.evaluate(outcome.theta).hessian
    exact = finite_hessian(criterion, outcome.theta)
    np.testing.assert_allclose(found, found.T, rtol=1e-12, atol=1e-9)
    assert np.linalg.eigvalsh(found).min() >= -1e-8 * np.abs(found).max()
    # average information is the mean of observed and expected information: near, not equal
    np.testing.assert_allclose(np.diagonal(found), np.diagonal(exact), rtol=0.6, atol=0.02 * np.abs(exact).max())


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_curvature_at_zero_is_exact(kind):
    """There the covariance's first derivatives vanish, and what is left is the exact curvature of the template."""
    model = Rows.draw(SHAPES[kind], 3)
    criterion = Criterion(model.gram, model.covariances, True)
    zero = np.zeros(criterion.n_theta)
    found, exact = criterion.evaluate(zero).hessian, finite_hessian(criterion, zero)
    assert not criterion.evaluate(zero).gradient.any()
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-6 * np.abs(exact).max())


@every
@given(st.data())
def test_signs_of_template_columns_do_not_matter(kind, data):
    model, theta, criterion, _ = drawn(kind, data)
    flipped = model.covariances.rectified(theta)
    assert np.all(flipped[criterion.lower == 0] >= 0)
    assert criterion.value(flipped) == pytest.approx(criterion.value(theta), rel=1e-12, abs=1e-12)


def test_a_pickled_criterion_is_the_same():
    model = Rows.draw(SHAPES["nested and crossed"], 0)
    criterion = Criterion(model.gram, model.covariances, True)
    theta = np.linspace(0.2, 1.0, criterion.n_theta)
    again = pickle.loads(pickle.dumps(criterion))
    assert again.value(theta) == criterion.value(theta)
    assert again.reml


def test_a_perfect_fit_has_no_value():
    model = Rows.draw(SHAPES["one"], 0)
    exact = Rows(
        *[getattr(model, f) for f in ("shape", "refs", "z", "x", "factor")],
        model.x @ [1.0, 2.0],
        model.w,
        model.active,
        0.0,
    )
    gram = exact.gram
    gram.xy[-1, -1] *= 1 - 1e-12  # rounding may leave the residual sum of squares at or below zero
    assert Criterion(gram, model.covariances, False).value(np.array([0.5])) == np.inf
