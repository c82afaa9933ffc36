"""Starting values: the model without random effects against dense iteratively reweighted least squares."""

from __future__ import annotations

import numpy as np
import pytest

from bigmm.families import family, rows, simulate, start_eta, start_mean
from bigmm.laplace.start import glm_start
from tests.families.pairs import PAIRS
from tests.laplace.models import Rows, mapped


def dense_glm(kind, x, y, w, offset, phi):
    """beta and X'WX by Fisher scoring with halving, from the family's starting means."""
    eta = start_eta(kind, y, w)
    beta = np.linalg.lstsq(x, eta - offset, rcond=None)[0]

    def ll(beta):
        return rows.score_full(kind, y, w, x @ beta + offset, phi)[0].sum()

    for _ in range(300):
        _, d1, weight = rows.score_full(kind, y, w, x @ beta + offset, phi)[:3]
        step = np.linalg.solve(x.T @ (weight[:, None] * x), x.T @ d1)
        while not ll(beta + step) >= ll(beta) and np.abs(step).max() > 1e-12:
            step = 0.5 * step
        beta = beta + step
    weight = rows.score_full(kind, y, w, x @ beta + offset, phi)[2]
    return beta, x.T @ (weight[:, None] * x), ll(beta)


@pytest.mark.parametrize("kind", PAIRS, ids=str)
def test_start_is_about_the_maximum_without_random_effects(kind):
    model = Rows.draw(kind, "one", n=200)
    found = glm_start(mapped(model.shards(model.edges(3))), kind, np.arange(3), 200)
    phi = first_shape(kind, model) if kind.name in ("negative_binomial", "beta") else 1.0
    _, _, ll = dense_glm(kind, model.x, model.y, model.weights, model.offset, phi)
    assert found.ll >= ll - 3e-3 * (1.0 + abs(ll))
    eta = model.x @ found.beta + model.offset
    row_ll, _, weight = rows.score_full(kind, model.y, model.weights, eta, phi)[:3]
    assert found.ll == pytest.approx(row_ll.sum(), rel=1e-12)
    assert found.information == pytest.approx(model.x.T @ (weight[:, None] * model.x), rel=1e-10)
    assert found.eta == pytest.approx(np.abs(eta).mean())
    assert found.passes <= 10
    if kind.name in ("gamma", "inverse_gaussian", "gaussian"):
        mu = rows.mean(kind, eta)
        pearson = (model.weights * (model.y - mu) ** 2 / rows.variance(kind, mu)).sum() / (200 - 3)
        assert found.phi == pytest.approx(pearson)
    elif not kind.has_dispersion:
        assert found.phi == 1.0


def first_shape(kind, model: Rows) -> float:
    """The moment estimate of the shape at the family's starting means."""
    mu = start_mean(kind, model.y, model.weights)
    if kind.name == "beta":  # mu (1 - mu) / (1 + phi) is the mean of (y - mu)^2
        squares, spread = ((model.y - mu) ** 2).sum(), (mu * (1.0 - mu)).sum()
        return float(np.clip(spread / max(squares, 1e-8 * spread) - 1.0, 0.05, 1e6))
    return float(np.clip((mu**2).sum() / max(((model.y - mu) ** 2 - mu).sum(), 1e-8 * (mu**2).sum()), 0.05, 1e4))


def test_the_shape_is_found_from_moments():
    kind = family("negative_binomial")
    rng = np.random.default_rng(3)
    model = Rows.draw(kind, "one", n=20_000, weighted=False)
    y = simulate(kind, rng, np.exp(model.x @ [0.7, 0.5, -0.5]), 1.0, 2.0)
    model = Rows(**{**model.__dict__, "y": y})
    assert glm_start(mapped(model.shards(model.edges(1))), kind, np.arange(3), 20_000).phi == pytest.approx(
        2.0, rel=0.15
    )


def test_the_shape_of_counts_without_overdispersion_is_large_but_finite():
    kind = family("negative_binomial")
    model = Rows.draw(family("poisson"), "one", n=200)
    even = Rows(**{**model.__dict__, "family": kind, "y": np.full(200, 2.0)})
    assert glm_start(mapped(even.shards(even.edges(1))), kind, np.arange(3), 200).phi == 1e4


def test_no_fixed_effects():
    kind = family("bernoulli")
    model = Rows.draw(kind, "one")
    found = glm_start(mapped(model.shards(model.edges(1))), kind, np.zeros(0, np.int64), 60)
    expected = rows.score_full(kind, model.y, 1.0, model.offset)[0].sum()
    assert found.beta.shape == (0,)
    assert found.ll == pytest.approx(expected)


def test_columns_on_very_different_scales():
    kind = family("bernoulli")
    model = Rows.draw(kind, "one", n=200)
    x = model.x * [1.0, 1e6, 1e-6]
    scaled = Rows(**{**model.__dict__, "x": x})
    one = glm_start(mapped(model.shards(model.edges(1))), kind, np.arange(3), 200)
    other = glm_start(mapped(scaled.shards(scaled.edges(1))), kind, np.arange(3), 200)
    assert other.beta * [1.0, 1e6, 1e-6] == pytest.approx(one.beta, rel=1e-5)
