"""Observed information by differences of the gradient, its inverse, and coordinates that do not depend on scales."""

from __future__ import annotations

import numpy as np
import pytest

from bigmm.families import family
from bigmm.laplace.information import covariance, observed_hessian
from tests.laplace.models import Rows, differences

CASES = [("bernoulli", "logit", "one"), ("poisson", "log", "crossed"), ("gamma", "log", "one slope")]


def engine_of(name: str, link: str, kind: str):
    model = Rows.draw(family(name, link), kind)
    observed = model.family.has_dispersion
    return model, model.single(observed) if kind.startswith("one") else model.crossed(observed)


@pytest.mark.parametrize(("name", "link", "kind"), CASES)
def test_hessian_against_differences_of_the_value(name, link, kind):
    model, engine = engine_of(name, link, kind)
    here = engine.evaluate(model.psi)
    free = np.ones(len(model.psi), bool)
    found = observed_hessian(lambda psi: engine.evaluate(psi).gradient, model.psi, here.hessian, free)
    step, n = 2e-3, len(model.psi)
    expected = np.empty((n, n))
    for i, e in enumerate(np.eye(n)):
        up, down = (differences(engine.value, model.psi + s * step * e) for s in (1, -1))
        expected[i] = (up - down) / (2.0 * step)
    scale = np.sqrt(np.abs(np.outer(np.diagonal(expected), np.diagonal(expected))))
    assert np.abs(found - expected).max() > 0.0
    assert (np.abs(found - expected) / scale).max() < 2e-3
    assert found == pytest.approx(found.T)


def test_fixed_parameters_have_no_curvature():
    model, engine = engine_of(*CASES[0])
    free = np.array([True, False, True, True])
    found = observed_hessian(lambda psi: engine.evaluate(psi).gradient, model.psi, np.eye(4), free)
    assert np.all(found[1] == 0.0) and np.all(found[:, 1] == 0.0)
    assert np.all(np.diagonal(found)[free] > 0.0)


def test_covariance_is_the_inverse_of_half_the_hessian():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    hessian = root @ root.T + np.eye(4)
    hessian[2], hessian[:, 2] = 0.0, 0.0
    free = np.array([True, True, False, True])
    found = covariance(hessian, free)
    assert found is not None
    kept = np.ix_(free, free)
    assert found[kept] == pytest.approx(2.0 * np.linalg.inv(hessian[kept]))
    assert np.all(found[2] == 0.0)


@pytest.mark.parametrize("smallest", [0.0, -0.1])
def test_no_covariance_where_the_hessian_is_not_positive_definite(smallest):
    assert covariance(np.diag([1.0, smallest]), np.ones(2, bool)) is None
