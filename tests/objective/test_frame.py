"""Coordinates of the search: the same model, the same values, however large or far from zero covariates are."""

from dataclasses import replace

import numpy as np
import pytest

from bigmm.blocks import Gram
from bigmm.objective import Criterion
from bigmm.objective.covariances import ModelCovariance, TermCovariance
from bigmm.objective.frame import Frame, Framed, frame_of
from bigmm.objective.start import level_squares
from tests.oracle import SHAPES, Rows

WIDE = ("crossed slope", "one wide", "nested")


def frame_for(gram: Gram, covariances: ModelCovariance) -> Frame:
    return frame_of(covariances, [t.basis for t in gram.terms if t.penalized], level_squares(gram))


def framed_criterion(kind: str, reml: bool = True) -> Framed:
    model = Rows.draw(SHAPES[kind], 1)
    return Framed(Criterion(model.gram, model.covariances, reml), frame_for(model.gram, model.covariances))


def some_theta(covariances: ModelCovariance) -> np.ndarray:
    return covariances.rectified(np.random.default_rng(3).normal(0.6, 0.3, covariances.n_theta))


@pytest.mark.parametrize("kind", WIDE)
def test_there_and_back(kind):
    framed = framed_criterion(kind)
    theta = some_theta(framed.frame.covariances)
    assert not framed.frame.is_trivial
    np.testing.assert_allclose(framed.frame.outward(framed.frame.inward(theta)), theta, rtol=1e-10)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("kind", WIDE)
def test_gradient_and_values(kind, reml):
    framed = framed_criterion(kind, reml)
    eta = framed.frame.inward(some_theta(framed.frame.covariances))
    model = framed.evaluate(eta)
    assert model.value == pytest.approx(framed.criterion.value(framed.frame.outward(eta)), abs=1e-9)
    for i in range(len(eta)):
        step = np.zeros(len(eta))
        step[i] = 1e-5
        slope = (framed.value(eta + step) - framed.value(eta - step)) / 2e-5
        assert model.gradient[i] == pytest.approx(slope, rel=1e-5, abs=1e-4)


def test_curvature_follows_the_change_of_coordinates():
    """At a stationary point of a quadratic model J'HJ; average information alone transforms so anywhere."""
    framed = framed_criterion("crossed slope")
    theta = some_theta(framed.frame.covariances)
    eta = framed.frame.inward(theta)
    jacobian = framed.frame.jacobian(eta)
    np.testing.assert_allclose(
        framed.evaluate(eta).gradient, jacobian.T @ framed.criterion.evaluate(theta).gradient, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e8])
def test_columns_are_orthonormal(mean):
    covariances = ModelCovariance((TermCovariance("g", ("1", "x"), 0, (0, 1), 0),), (2,))
    basis = np.array([[1.0, mean], [0.0, 1.0]])
    square = np.array([[20.0, 0.03], [0.03, 4e-4]])
    found = frame_of(covariances, [basis], [square])
    columns = basis @ found.factors[0]
    np.testing.assert_allclose(columns.T @ square @ columns, np.eye(2), atol=1e-13 * (1.0 + mean / 4e-3))
    assert found.unidentified == ()


@pytest.mark.parametrize("column", [1.0, 7.0, 0.1])
def test_a_constant_column_gets_nothing(column):
    """Its shift leaves zeros, or what rounding leaves of them."""
    covariances = ModelCovariance((TermCovariance("g", ("1", "one"), 0, (0, 1), 0),), (2,))
    left = 1e-17
    found = frame_of(covariances, [np.array([[1.0, column], [0.0, 1.0]])], [np.array([[20.0, 0.0], [0.0, left**2]])])
    assert [name for _, name in found.unidentified] == ["one"]
    assert found.outward(np.array([2.0, 0.5, 0.7]))[1:].tolist() == [0.0, 0.0]
    # what is identified stays: the variance of intercept + column * slope
    theta = np.array([0.3, 0.2, 0.4])
    total = (theta[0] + column * theta[1]) ** 2 + (column * theta[2]) ** 2
    assert found.outward(found.inward(theta))[0] ** 2 == pytest.approx(total)


@pytest.mark.parametrize(("size", "unit"), [(1.0, 1.0), (100.0, 1.0), (3e9, 2.0**31), (1e-12, 2.0**-40)])
def test_a_scalar_term_is_searched_for_in_units_of_its_covariate(size, unit):
    covariances = ModelCovariance((TermCovariance("g", ("x",), 0, (0,), 0),), (1,))
    found = frame_of(covariances, [np.eye(1)], [np.array([[20.0 * size**2]])], [20.0])
    assert found.is_trivial == (unit == 1.0)
    near = np.array([0.5 * unit])
    np.testing.assert_array_equal(found.inward(np.array([0.5])), near)  # a power of two: exact
    np.testing.assert_array_equal(found.outward(near), [0.5])
    np.testing.assert_array_equal(found.inward(found.identity), [1.0])


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("structure", ["diag", "cs", "ar1"])
@pytest.mark.parametrize("kind", WIDE)
def test_gradient_and_curvature_of_a_structure(kind, structure, reml):
    """By central differences; the curvature is exact but for average information in place of the observed one."""
    rows = Rows.draw(SHAPES[kind], 4)
    terms, start = [], 0
    for term in rows.covariances.terms:
        terms.append(replace(term, start=start, structure=structure))
        start += terms[-1].size
    covariances = ModelCovariance(tuple(terms), rows.covariances.widths)
    bases = [term.basis for term in rows.gram.terms if term.penalized]
    units = [float(rows.gram.n) for _ in bases]
    framed = Framed(
        Criterion(rows.gram, covariances, reml), frame_of(covariances, bases, level_squares(rows.gram), units)
    )
    theta = np.concatenate([t.covariance.start(0.5 * np.eye(t.width)) for t in covariances.terms])
    point = framed.frame.inward(theta)
    np.testing.assert_allclose(framed.frame.outward(point), theta, rtol=1e-12)
    model, step = framed.evaluate(point), 1e-5
    moves = step * np.eye(len(point))
    slopes = [(framed.value(point + move) - framed.value(point - move)) / (2.0 * step) for move in moves]
    np.testing.assert_allclose(model.gradient, slopes, rtol=1e-5, atol=1e-6 * np.abs(model.gradient).max())
    np.testing.assert_allclose(framed.exact_gradient(point), model.gradient, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(model.hessian, model.hessian.T, atol=1e-9 * np.abs(model.hessian).max())
