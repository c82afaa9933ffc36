"""Newton's method for one level: from anywhere, with halved steps, and what it says when there is no mode."""

from __future__ import annotations

import numpy as np
import pytest

from bigmm.families import family, rows
from bigmm.laplace.mode import modes
from bigmm.laplace.records import Block, LevelModel, LevelRows, Point
from tests.laplace.models import Rows

NOTHING = np.empty(0)

pytestmark = pytest.mark.interpreted


def run(kind, y, z, eta, lam, start, w=NOTHING, phi=1.0):
    """One level: (u (k,), value, failures)."""
    k = lam.shape[0]
    columns = np.ascontiguousarray(np.atleast_2d(z[:, 1:].T)) if k > 1 else np.zeros((1, len(y)))
    u, eta0, values = np.array(start, float).reshape(1, k), np.empty(len(y)), np.empty(1)
    none = np.zeros((0, 2), np.int64)
    numbers = kind.family_id, kind.link_id, np.zeros(0, np.int64), np.arange(k)
    model = LevelModel(*numbers, False, False, False, np.array([0, k]), none)
    observations = LevelRows(columns, np.asarray(y, float), w, np.asarray(eta, float), np.array([0, len(y)]))
    failures = modes(Block(0, 1), observations, model, Point(np.zeros(0), lam, phi), u, eta0, values)
    return u[0], values[0], failures


@pytest.mark.parametrize("name", ["bernoulli", "poisson"])
@pytest.mark.parametrize("start", [0.0, 5.0, -30.0, 300.0])
def test_every_start_leads_to_the_same_mode(name, start):
    kind, rng = family(name), np.random.default_rng(0)
    y, z, lam = rng.integers(0, 2, 12), np.ones((12, 1)), np.array([[1.3]])
    eta = rng.normal(size=12)
    u, value, failures = run(kind, y, z, eta, lam, [start])
    assert failures == 0
    ll, d1 = rows.score_full(kind, y, 1.0, eta + 1.3 * u[0])[:2]
    assert 1.3 * d1.sum() - u[0] == pytest.approx(0.0, abs=1e-7)
    assert value == pytest.approx(ll.sum() - 0.5 * u[0] ** 2, rel=1e-12)


def test_steps_that_overshoot_are_halved():
    """One huge count far from its start: plain Newton from there multiplies the mean by exp of a hundred."""
    kind = family("poisson")
    u, _, failures = run(kind, [1e6], np.ones((1, 1)), [-20.0], np.array([[3.0]]), [0.0])
    assert failures == 0
    d1 = rows.score_full(kind, 1e6, 1.0, -20.0 + 3.0 * u[0])[1]
    assert 3.0 * d1 == pytest.approx(u[0], rel=1e-6)


def test_two_effects():
    kind, rng = family("bernoulli"), np.random.default_rng(2)
    y, z = rng.integers(0, 2, 30), np.column_stack([np.ones(30), rng.normal(size=30)])
    lam = np.array([[1.1, 0.0], [0.4, 0.7]])
    u, _, failures = run(kind, y, z, np.zeros(30), lam, [0.0, 0.0])
    d1 = rows.score_full(kind, y, 1.0, z @ lam @ u)[1]
    assert failures == 0
    assert lam.T @ z.T @ d1 == pytest.approx(u, abs=1e-7)


def test_a_start_without_a_mean_is_tried_again_from_zero():
    kind = family("gamma", "identity")
    u, _, failures = run(kind, [1.0, 2.0], np.ones((2, 1)), [1.5, 1.5], np.array([[0.5]]), [-50.0])
    assert failures == 0 and np.isfinite(u[0]) and 1.5 + 0.5 * u[0] > 0.0


def test_no_mean_anywhere_is_a_failure():
    kind = family("gamma", "identity")
    _, _, failures = run(kind, [1.0], np.ones((1, 1)), [-1.0], np.array([[0.0]]), [0.0])
    assert failures == 1


def test_the_engine_says_infinity_where_a_level_has_no_mode():
    model = Rows.draw(family("gamma", "identity"), "one")
    psi = model.psi.copy()
    psi[0] = -5.0
    engine = model.single(True)
    before = engine.u.copy()
    assert engine.value(psi) == np.inf
    assert np.array_equal(engine.u, before)
    assert np.isfinite(engine.value(model.psi))
    crossed = Rows.draw(family("gamma", "identity"), "crossed")
    far = crossed.psi.copy()
    far[0] = -5.0
    assert crossed.crossed(True).value(far) == np.inf
    assert np.isinf(crossed.crossed(True).evaluate(far).value)
