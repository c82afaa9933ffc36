"""Where a search starts, when restarts are worth it, and that compressing the blocks changes no outcome."""

import numpy as np
import pytest

from bigmm.objective import Criterion, cholesky, moment_start
from bigmm.objective.cholesky import CholeskySolver
from bigmm.search import linear
from tests.blocks.test_compress import MODELS
from tests.oracle import SHAPES, Rows


@pytest.mark.parametrize("name", MODELS)
def test_compression_changes_no_outcome(name, monkeypatch):
    gram, covariances = MODELS[name]
    criterion = Criterion(gram, covariances, True)
    compressed = linear.minimize_criterion(criterion, "auto")
    monkeypatch.setattr(criterion.solver, "compressed", lambda: None)
    whole = linear.minimize_criterion(criterion, "auto")
    assert compressed.converged
    np.testing.assert_allclose(compressed.theta, whole.theta, rtol=1e-9, atol=1e-10)
    assert compressed.value == pytest.approx(whole.value, rel=1e-12)


@pytest.mark.parametrize("kind", sorted(SHAPES))
@pytest.mark.parametrize("optimizer", ["auto", "bobyqa"])
def test_every_structure_converges(kind, optimizer):
    model = Rows.draw(SHAPES[kind], 6)
    criterion = Criterion(model.gram, model.covariances, True)
    outcome = linear.minimize_criterion(criterion, optimizer)
    assert outcome.converged, outcome.advice
    assert np.all(outcome.theta[criterion.lower == 0] >= 0)
    best = model.dense(outcome.theta, True).objective
    assert outcome.value == pytest.approx(best, rel=1e-10)
    rng = np.random.default_rng(0)
    for move in rng.normal(size=(10, criterion.n_theta)) * 0.02:
        assert model.dense(outcome.theta + move, True).objective >= best - 1e-9


def test_restarts_where_evaluations_are_cheap():
    model = Rows.draw(SHAPES["three crossed"], 0)
    outcome = linear.minimize_criterion(Criterion(model.gram, model.covariances, True), "auto")
    assert outcome.starts == 4
    assert CholeskySolver(model.gram).is_cheap


def test_theta0_comes_first():
    model = Rows.draw(SHAPES["crossed"], 0)
    moments, given = moment_start(model.gram, model.covariances), np.array([0.3, 0.4])
    first, *rest = linear.starts(moments, model.covariances, given, np.ones(2))
    np.testing.assert_array_equal(first, [0.3, 0.4])
    assert len(rest) == 4


def test_large_problems_are_not_cheap(monkeypatch):
    model = Rows.draw(SHAPES["crossed"], 0)
    monkeypatch.setattr(cholesky, "CHEAP_TAIL", 3)
    assert not CholeskySolver(model.gram).is_cheap
