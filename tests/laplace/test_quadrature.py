"""Adaptive quadrature: the nodes, brute-force integration of every level, the gradient, and lme4's figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from bigmm.families import family, rows
from bigmm.laplace.quadrature import gauss_hermite
from tests.families.pairs import PAIRS
from tests.laplace.models import Rows, differences


@pytest.mark.parametrize("n", [2, 9, 25])
def test_nodes_integrate_polynomials_against_the_standard_normal(n):
    nodes, log_weights = gauss_hermite(n)
    for power in range(0, 2 * n, 2):
        moment = float(np.exp(log_weights) @ nodes**power)
        assert moment == pytest.approx(math.prod(range(1, power, 2)), rel=1e-10)


@pytest.mark.parametrize("n", [0, 1])
def test_laplace_has_no_nodes(n):
    nodes, log_weights = gauss_hermite(n)
    assert len(nodes) == len(log_weights) == 0


def brute_force(model: Rows, psi: np.ndarray) -> float:
    """-2 sum of log integrals, one adaptive integration per level."""
    beta, theta, phi = model.parameters().split(psi)
    eta = model.x @ beta + (0.0 if model.offset is None else model.offset)
    total = 0.0
    for level in range(model.terms[0][0]):
        at = model.refs[0] == level
        y, w, eta_l = model.y[at], model.weights[at], eta[at]

        def logs(u, y=y, w=w, eta_l=eta_l):
            return rows.log_density(model.family, y, w, eta_l + theta[0] * u, phi).sum() - 0.5 * u * u

        grid = np.linspace(-9.0, 9.0, 361)
        values = np.array([logs(u) for u in grid])
        top = values.max()
        inside = grid[values > top - 60.0]
        found, _ = quad(
            lambda u, f=logs, top=top: np.exp(f(u) - top),
            inside[0],
            inside[-1],
            epsabs=0.0,
            epsrel=1e-11,
            limit=400,
            points=[grid[values.argmax()]],
        )
        total += -2.0 * (np.log(found) + top - 0.5 * np.log(2.0 * np.pi))
    return total


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("bernoulli", "logit"),
        ("binomial", "probit"),
        ("binomial", "cloglog"),
        ("binomial", "cauchit"),
        ("poisson", "log"),
        ("poisson", "sqrt"),
        ("negative_binomial", "log"),
        ("gamma", "log"),
        ("inverse_gaussian", "log"),
        ("gaussian", "log"),
    ],
)
def test_many_points_are_brute_force_integration(name, link):
    model = Rows.draw(family(name, link), "one", n=40)
    expected = brute_force(model, model.psi)
    observed = model.family.has_dispersion
    assert model.single(observed, nagq=61).value(model.psi) == pytest.approx(expected, rel=1e-8)
    errors = [abs(model.single(observed, nagq=k).value(model.psi) - expected) for k in (1, 5, 25)]
    assert errors[2] < errors[1] < errors[0]


@pytest.mark.parametrize("kind", PAIRS, ids=str)
def test_gradient(kind):
    model = Rows.draw(kind, "one")
    engine = model.single(kind.has_dispersion, nagq=5)
    found, gradient = engine.evaluate(model.psi), differences(engine.value, model.psi)
    assert np.isfinite(found.value)
    assert found.value == pytest.approx(engine.value(model.psi), rel=1e-13)
    assert np.abs(found.gradient - gradient).max() <= 1e-6 * np.abs(gradient).max()


@pytest.mark.parametrize("kind", [f for f in PAIRS if not f.canonical and not f.has_dispersion], ids=str)
def test_gradient_where_observed_weights_scale_the_nodes(kind):
    model = Rows.draw(kind, "one")
    engine = model.single(True, nagq=4)
    found, gradient = engine.evaluate(model.psi), differences(engine.value, model.psi)
    assert np.abs(found.gradient - gradient).max() <= 1e-6 * np.abs(gradient).max()


def test_the_curvature_of_coefficients_is_half_the_sum_of_outer_products():
    model = Rows.draw(PAIRS[0], "one")
    found = model.single(False, nagq=7).evaluate(model.psi)
    total = np.zeros_like(found.hessian)
    for level in range(model.terms[0][0]):
        g = model.with_rows(model.refs[0] == level).single(False, nagq=7).evaluate(model.psi).gradient
        total += 0.5 * np.outer(g, g)
    different = ~np.isclose(found.hessian, total, rtol=1e-9)
    assert np.array_equal(np.argwhere(different), [[3, 3]])
    assert np.array_equal(found.hessian, found.hessian.T)


@pytest.mark.parametrize("kind", PAIRS, ids=str)
@pytest.mark.parametrize("nagq", [1, 9])
def test_the_curvature_in_theta_is_exact_at_zero(kind, nagq):
    """There every level's gradient vanishes, and only the curvature tells a minimum from a saddle."""
    model = Rows.draw(kind, "one")
    engine = model.single(kind.has_dispersion or not kind.canonical, nagq)
    psi, move = model.psi.copy(), np.zeros(len(model.psi))
    psi[3], move[3] = 0.0, 1e-3
    found = engine.evaluate(psi)
    second = (engine.value(psi + move) - 2.0 * found.value + engine.value(psi - move)) / 1e-6
    assert found.gradient[3] == pytest.approx(0.0, abs=1e-9)
    assert found.hessian[3, 3] == pytest.approx(second, rel=2e-3, abs=1e-3)
