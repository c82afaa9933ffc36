"""nagq = 0: coefficients follow from PIRLS, and only theta (and the dispersion) are searched."""

from __future__ import annotations

import numpy as np
import pytest

from bigmm.families import rows
from tests.families.pairs import PAIRS
from tests.laplace.models import Rows, differences


@pytest.mark.parametrize("family", PAIRS, ids=str)
@pytest.mark.parametrize("kind", ["one", "crossed slopes"])
def test_gradient(family, kind):
    model = Rows.draw(family, kind, n=120)
    engine = model.crossed(family.has_dispersion, profile=True)
    psi = model.psi[3:]
    found, gradient = engine.evaluate(psi), differences(engine.value, psi)
    assert np.isfinite(found.value) and found.gradient.shape == psi.shape
    assert np.abs(found.gradient - gradient).max() <= 1e-6 * np.abs(gradient).max()


@pytest.mark.parametrize("family", PAIRS[::3], ids=str)
def test_coefficients_and_effects_solve_the_penalized_equations(family):
    model = Rows.draw(family, "crossed", n=120)
    engine = model.crossed(family.has_dispersion, profile=True)
    mode = engine.mode(model.psi[3:])
    assert mode.settled
    _, theta, phi = model.parameters(profile=True).split(model.psi[3:])
    lams = model.covariances.joint(theta)
    b = np.concatenate([(u @ lam.T).ravel() for u, lam in zip(mode.u, lams, strict=True)])
    eta = model.x @ mode.beta + model.offset + model.z @ b
    ll, d1 = rows.score_full(family, model.y, model.weights, eta, phi)[:2]
    assert model.x.T @ d1 == pytest.approx(0.0, abs=1e-5)
    pulled = model.z.T @ d1
    at = 0
    for u, lam in zip(mode.u, lams, strict=True):
        part = pulled[at : at + u.size].reshape(u.shape)
        assert part @ lam == pytest.approx(u, abs=1e-5)
        at += u.size
    penalty = sum(float((u**2).sum()) for u in mode.u)
    assert mode.penalized == pytest.approx(-2.0 * ll.sum() + penalty, rel=1e-10)
