"""Traces that a scale of zero hides: the exact ones, within the errors that probes say."""

import numpy as np
import pytest

from bigmm.objective import Criterion
from bigmm.objective.boundary import raised, square_root
from bigmm.objective.krylov import KrylovSolver
from tests.oracle import Rows, Shape

CROSSED = Shape(((60, 2, False), (40, 1, False), (8, 1, False)), n=2000, weighted=False)


def both(theta, reml):
    model = Rows.draw(CROSSED, 4)
    exact = Criterion(model.gram, model.covariances, reml)
    ours = Criterion(model.gram, model.covariances, reml, KrylovSolver(model.gram, 24, 8, 1))
    return exact, ours, np.array(theta)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize(
    "theta",
    [[0.6, 0.1, 0.4, 0.5, 0.0], [0.6, 0.1, 0.4, 0.5, 1e-4], [0.6, 0.1, 0.4, 0.0, 0.3], [0.6, 0.1, 0.0, 0.5, 0.2]],
    ids=["few levels", "nearly", "tail", "correlation"],
)
def test_projections_at_small_scales(theta, reml):
    exact, ours, theta = both(theta, reml)
    expected = exact.factor(theta).projected(reml)
    factor = ours.factor(theta)
    found, spread = factor.projected(reml), factor.spread(reml)
    for j, (a, b) in enumerate(zip(found, expected, strict=True)):
        error = np.std([each[j] for each in spread], axis=0, ddof=1) / np.sqrt(len(spread))
        assert np.all(np.abs(a - b) <= 4.0 * error + 2e-3 * np.abs(np.diagonal(b)).max())


@pytest.mark.parametrize("reml", [False, True])
def test_the_curvature_at_zero_has_its_sign(reml):
    """Twice the derivative in the variance: it was that of the residuals alone, always negative."""
    exact, ours, theta = both([0.6, 0.1, 0.4, 0.5, 0.0], reml)
    expected, found = (c.evaluate(theta).hessian[-1, -1] for c in (exact, ours))
    assert found == pytest.approx(expected, rel=0.2)


def test_large_scales_are_left_alone():
    square = np.array([[20.0, 1.0], [1.0, 5.0]])
    assert raised(np.array([[0.5, 0.0], [0.1, 0.2]]), square) is None
    # a direction that the columns do not have is no small scale
    assert raised(np.array([[0.5, 0.0], [0.0, 0.0]]), np.diag([20.0, 0.0])) is None


def test_small_scales_are_raised_and_no_others():
    square = np.array([[20.0, 1.0], [1.0, 5.0]])
    found = raised(np.array([[0.5, 0.0], [0.1, 1e-3]]), square)
    root = square_root(square)
    np.testing.assert_allclose(root.T @ root, square)
    before = np.linalg.svd(root @ np.array([[0.5, 0.0], [0.1, 1e-3]]), compute_uv=False)
    for lam, size in zip(found.lams, (0.05, 0.1), strict=True):
        scales = np.linalg.svd(root @ lam, compute_uv=False)
        np.testing.assert_allclose(scales, [before[0], size])
        assert np.linalg.det(lam) > 0
    # the line through both sizes ends at the scale itself
    assert 0.05**2 + found.weight * (0.1**2 - 0.05**2) == pytest.approx(before[1] ** 2)
