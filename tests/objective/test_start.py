"""The start from moments is positive, near the truth on large balanced data, and never off by the scale of the data."""

import numpy as np
import pytest

from bigmm.objective import moment_start
from tests.oracle import SHAPES, Rows, Shape


def test_near_the_truth_on_many_rows():
    model = Rows.draw(Shape(((60, 1, False), (40, 1, False)), n=2000, weighted=False), 0)
    np.testing.assert_allclose(moment_start(model.gram, model.covariances), 1.0, rtol=0.35)


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_scales_are_positive_and_uncorrelated_in_the_working_basis(kind):
    model = Rows.draw(SHAPES[kind], 2)
    start = moment_start(model.gram, model.covariances)
    scales = model.covariances.lower == 0
    assert np.all(np.isfinite(start))
    assert np.all(start[scales] > 0)
    for term, lam in zip(model.covariances.terms, model.covariances.lambdas(start), strict=True):
        root = model.gram.terms[term.joint].basis @ lam
        covariance = root @ root.T
        np.testing.assert_allclose(covariance, np.diag(np.diagonal(covariance)), atol=1e-12)


def test_the_scale_of_the_response_does_not_matter():
    model = Rows.draw(SHAPES["crossed slope"], 2)
    fields = ("shape", "refs", "z", "x", "factor", "w", "active", "shift")
    values = {name: getattr(model, name) for name in fields}
    scaled = Rows(**values, y=1e3 * model.y)
    flat = Rows(**{**values, "shift": 0.0}, y=model.y), Rows(**{**values, "shift": 0.0}, y=1e3 * model.y)
    assert np.all(np.isfinite(moment_start(scaled.gram, scaled.covariances)))
    np.testing.assert_allclose(*(moment_start(m.gram, m.covariances) for m in flat), rtol=1e-8)


@pytest.mark.parametrize("size", [1e-8, 1e8])
def test_the_scale_of_a_covariate_does_not_matter(size):
    model = Rows.draw(SHAPES["one wide"], 2)
    unit = np.append(1.0, np.full(model.shape.terms[0][1] - 1, size))
    fields = ("shape", "refs", "x", "factor", "y", "w", "active")
    values = {name: getattr(model, name) for name in fields}
    plain, scaled = (Rows(**values, z=(z,), shift=0.0) for z in (model.z[0], model.z[0] * unit))
    diagonal = np.flatnonzero(model.covariances.lower == 0)
    expected = moment_start(plain.gram, plain.covariances)[diagonal] / unit
    np.testing.assert_allclose(moment_start(scaled.gram, scaled.covariances)[diagonal], expected, rtol=1e-6)


def test_a_constant_column_has_a_start():
    """Shifted, it is nothing but zeros: a variance of any size would have been as good."""
    model = Rows.draw(SHAPES["crossed slope"], 2)
    z = tuple(np.where(np.arange(own.shape[1]) > 0, model.shift, own) for own in model.z)
    names = ("shape", "refs", "x", "factor", "y", "w", "active", "shift")
    start = moment_start(Rows(**{name: getattr(model, name) for name in names}, z=z).gram, model.covariances)
    assert np.all(np.abs(start) < 1e3)
