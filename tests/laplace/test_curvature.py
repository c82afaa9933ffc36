"""At a boundary the curvature is exact: what says whether a variance of 0 is a minimum, against differences of the
gradient."""

from __future__ import annotations

import numpy as np
import pytest

from tests.families.pairs import PAIRS
from tests.laplace.models import Rows
from tests.laplace.test_gradient import CASES

#: kind of rows, engine, and which diagonal of the covariances is set to 0.
BOUNDARIES = [
    ("one slope", "single", 1),
    ("one slope", "nested", 1),
    ("nested slopes", "nested", 1),
    ("slope at the top", "nested", 2),
    ("three levels", "nested", 2),
    ("nested slopes", "crossed", 1),
    ("crossed slopes", "crossed", 1),
]


def by_differences(engine, psi, i, step=3e-3):
    """Second derivative along parameter i from gradients, to fourth order."""
    e = np.eye(len(psi))[i]
    g = [engine.evaluate(psi + m * step * e).gradient[i] for m in (-2, -1, 1, 2)]
    return (g[0] - 8.0 * g[1] + 8.0 * g[2] - g[3]) / (12.0 * step)


@pytest.mark.parametrize(("family", "observed"), CASES[::4])
@pytest.mark.parametrize(("kind", "engine", "which"), BOUNDARIES)
def test_the_curvature_of_a_variance_at_zero_is_exact(family, observed, kind, engine, which):
    model = Rows.draw(family, kind)
    psi = model.psi.copy()
    i = int(np.flatnonzero(model.covariances.lower == 0)[which]) + 3
    psi[i] = 0.0
    chosen = getattr(model, engine)(observed)
    found = chosen.evaluate(psi).hessian[i, i]
    assert found == pytest.approx(by_differences(chosen, psi, i), rel=2e-3, abs=1e-6)


def test_the_engines_agree_on_it():
    model = Rows.draw(PAIRS[0], "slope at the top")
    psi = model.psi.copy()
    psi[-1] = 0.0
    found, expected = model.nested(False, 2).evaluate(psi), model.crossed(False).evaluate(psi)
    assert np.allclose(found.hessian, expected.hessian, rtol=1e-8)
