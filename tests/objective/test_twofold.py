"""The exact gradient against rational arithmetic on dense matrices, where float64 loses digits."""

from fractions import Fraction

import numpy as np
import pytest

from bigmm.objective import Criterion
from bigmm.objective.frame import Framed, frame_of
from bigmm.objective.twofold import exact_gradient, is_affordable
from tests.oracle import SHAPES, Rows, Shape

rational = np.vectorize(Fraction, otypes=[object])


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Gauss-Jordan on fractions; positive definite matrices need no pivots."""
    n = len(matrix)
    work = np.hstack([matrix, rational(np.eye(n))])
    for i in range(n):
        work[i] = work[i] / work[i, i]
        for j in range(n):
            if j != i and work[j, i] != 0:
                work[j] = work[j] - work[j, i] * work[i]
    return work[:, n:]


def rational_gradient(rows: Rows, theta: np.ndarray, reml: bool) -> np.ndarray:
    """d criterion / d theta_j = tr(P dV) - y'P dV P y / sigma^2 by the definition, scalar terms, no weights."""
    x, y, n = rational(rows.x), rational(rows.y), len(rows.y)
    designs = [rational(np.eye(q)[refs]) for (q, _, _), refs in zip(rows.shape.terms, rows.refs)]
    variance = rational(np.eye(n))
    for t, z in zip(theta, designs):
        variance = variance + Fraction(t) ** 2 * (z @ z.T)
    v_inverse = inverse(variance)
    v_x = v_inverse @ x
    projection = v_inverse - v_x @ inverse(x.T @ v_x) @ v_x.T
    residual = projection @ y
    sigma2 = (y @ residual) / (n - (x.shape[1] if reml else 0))
    trace = projection if reml else v_inverse
    return np.array(
        [
            float(2 * Fraction(t) * (np.trace(z.T @ trace @ z) - (z.T @ residual) @ (z.T @ residual) / sigma2))
            for t, z in zip(theta, designs)
        ]
    )


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("terms", [((4, 1, False),), ((6, 1, True), (2, 1, False)), ((5, 1, False), (3, 1, False))])
def test_gradient_has_the_digits_that_rational_arithmetic_has(terms, reml):
    rows = Rows.draw(Shape(terms, weighted=False, n=18), 3)
    # sums of integers are exact, so the blocks are those of the rows
    object.__setattr__(rows, "x", np.round(8 * rows.x))
    object.__setattr__(rows, "y", np.round(8 * rows.y))
    criterion = Criterion(rows.gram, rows.covariances, reml)
    frames, widths = tuple(map(np.eye, rows.covariances.widths)), len(terms)
    # traces of several terms are those of the factor, in float64
    for size in (0.7, 30.0, 3000.0) if widths == 1 else (0.7, 30.0):
        theta = size * np.array([1.0, 0.5][:widths])
        found = exact_gradient(criterion, theta, frames, theta)
        np.testing.assert_allclose(found, rational_gradient(rows, theta, reml), rtol=1e-13 if widths == 1 else 1e-11)


@pytest.mark.parametrize("kind", [kind for kind in SHAPES if not SHAPES[kind].fixed])
def test_exact_gradient_is_the_gradient(kind):
    rows = Rows.draw(SHAPES[kind], 2)
    for reml in (True, False):
        criterion = Criterion(rows.gram, rows.covariances, reml)
        theta = np.where(criterion.lower == 0, 0.8, 0.1)
        assert is_affordable(rows.gram)
        frames = tuple(map(np.eye, rows.covariances.widths))
        found, expected = exact_gradient(criterion, theta, frames, theta), criterion.evaluate(theta).gradient
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
        framed = Framed(
            criterion, frame_of(rows.covariances, [t.basis for t in rows.gram.terms], criterion.solver.squares())
        )
        eta = framed.frame.inward(theta)
        expected = framed.evaluate(eta).gradient
        np.testing.assert_allclose(framed.exact_gradient(eta), expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())


def test_a_scale_of_zero_is_no_obstacle():
    rows = Rows.draw(Shape(((6, 1, False), (4, 1, False)), weighted=False), 1)
    criterion, theta = Criterion(rows.gram, rows.covariances, True), np.array([0.7, 0.0])
    found = exact_gradient(criterion, theta, tuple(map(np.eye, (1, 1))), theta)
    np.testing.assert_allclose(found, criterion.evaluate(theta).gradient, rtol=1e-10, atol=1e-10)
    assert found[1] == 0.0


def test_factors_among_the_fixed_effects_are_not_for_refinement():
    rows = Rows.draw(next(shape for shape in SHAPES.values() if shape.fixed), 1)
    assert not is_affordable(rows.gram)
