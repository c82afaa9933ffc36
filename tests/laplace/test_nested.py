"""Nested factors, one task per shard: values against dense matrices, gradients against differences and the blocked
factor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bigmm.families import rows
from bigmm.laplace.block_layout import gram_of
from bigmm.laplace.one_factor import working_blocks
from tests.families.pairs import PAIRS
from tests.laplace.models import Rows, dense_laplace, differences
from tests.laplace.test_gradient import CASES

NESTED = ["nested", "nested slopes", "slope at the top", "three levels"]
LOGIT = PAIRS[0]


def largest(difference, of) -> float:
    return float(np.abs(difference).max() / np.abs(of).max())


@pytest.mark.parametrize(("family", "observed"), CASES)
@pytest.mark.parametrize("kind", NESTED)
def test_value_gradient_and_curvature_are_those_of_the_blocked_factor(family, observed, kind):
    model = Rows.draw(family, kind)
    found, expected = model.nested(observed, 2).evaluate(model.psi), model.crossed(observed).evaluate(model.psi)
    assert found.value == pytest.approx(dense_laplace(model, model.psi, observed), rel=1e-11)
    assert found.value == pytest.approx(expected.value, rel=1e-9)
    assert largest(found.gradient - expected.gradient, expected.gradient) < 1e-7
    assert largest(found.hessian - expected.hessian, expected.hessian) < 1e-7


@pytest.mark.parametrize(("family", "observed"), CASES[::3])
@pytest.mark.parametrize("kind", ["nested slopes", "three levels"])
def test_gradient_against_differences(family, observed, kind):
    model = Rows.draw(family, kind, seed=4)
    engine = model.nested(observed, 3)
    found = engine.evaluate(model.psi)
    assert found.value == pytest.approx(engine.value(model.psi), rel=1e-10)
    assert largest(found.gradient - differences(engine.value, model.psi), found.gradient) < 1e-6


@pytest.mark.parametrize("kind", NESTED)
def test_rows_without_weights_and_offset(kind):
    model = Rows.draw(LOGIT, kind, weighted=False)
    assert model.w is None and model.offset is None
    found, expected = model.nested(False).evaluate(model.psi), model.crossed(False).evaluate(model.psi)
    assert found.value == pytest.approx(expected.value, rel=1e-9)
    assert largest(found.gradient - expected.gradient, expected.gradient) < 1e-7


def test_one_factor_is_a_chain_too():
    model = Rows.draw(LOGIT, "one slope")
    found, expected = model.nested(False, 3).evaluate(model.psi), model.single(False).evaluate(model.psi)
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    assert largest(found.gradient - expected.gradient, expected.gradient) < 1e-9


@pytest.mark.parametrize("kind", NESTED)
def test_theta_zero_is_stationary_with_curvature(kind):
    model = Rows.draw(next(f for f in PAIRS if f.name == "poisson" and f.link == "log"), kind)
    psi = model.psi.copy()
    psi[3:] = 0.0
    found, expected = model.nested(False).evaluate(psi), model.crossed(False).evaluate(psi)
    eta = model.x @ psi[:3] + model.offset
    assert found.value == pytest.approx(-2.0 * rows.log_density(model.family, model.y, model.w, eta).sum(), rel=1e-12)
    assert found.gradient[3:] == pytest.approx(0.0, abs=1e-9)
    assert largest(found.hessian - expected.hessian, expected.hessian) < 1e-9


def test_an_evaluation_is_one_round_and_starts_at_the_last_modes():
    model = Rows.draw(LOGIT, "three levels")
    engine = model.nested(False, 3)
    rounds, plain = [], engine.map_shards

    def counted(task, *args, per_shard):
        rounds.append(per_shard)
        return plain(task, *args, per_shard=per_shard)

    engine.map_shards = counted
    engine.evaluate(model.psi)
    engine.value(model.psi + 0.01)
    assert len(rounds) == engine.passes == 2
    assert all(len(u) == 0 for u in rounds[0]) and all(np.abs(u).max() > 0 for u in rounds[1])


def test_modes_that_are_handed_in_are_not_changed():
    model = Rows.draw(LOGIT, "nested")
    engine = model.nested(False, 2)
    engine.value(model.psi)
    before = [u.copy() for u in engine.u]
    given = list(engine.u)
    engine.value(model.psi + 0.3)
    assert all(np.array_equal(a, b) for a, b in zip(before, given, strict=True))
    assert not np.array_equal(engine.u[0], before[0])


def test_rows_of_weight_zero_and_counted_twice():
    binomial = next(f for f in PAIRS if f.name == "binomial" and f.link == "logit")
    model = Rows.draw(binomial, "three levels")
    w = model.w.copy()
    w[::7] = 0.0
    twice = np.r_[np.arange(len(w)), np.arange(len(w))]
    some = replace(model, w=w)
    doubled = replace(some.with_rows(twice), w=w[twice] / 2.0)
    one, other = some.nested(False, 2).evaluate(model.psi), doubled.nested(False, 2).evaluate(model.psi)
    assert one.value - some.constant == pytest.approx(other.value - doubled.constant, rel=1e-11)
    assert largest(one.gradient - other.gradient, one.gradient) < 1e-9


@pytest.mark.parametrize("kind", NESTED)
def test_levels_without_rows_and_one_large_tree(kind):
    model = Rows.draw(LOGIT, kind, n=120, weighted=False)
    keep = (model.refs[0] != model.refs[0][0]) & ((model.refs[-1] == 0) | (np.arange(120) % 5 == 0))
    few = model.with_rows(keep)
    found = few.nested(False, 3).evaluate(model.psi)
    assert found.value == pytest.approx(dense_laplace(few, model.psi, False), rel=1e-11)
    assert np.isfinite(found.gradient).all()


def test_far_from_the_mode_it_comes_back_or_says_inf():
    model = Rows.draw(next(f for f in PAIRS if f.name == "poisson" and f.link == "log"), "three levels")
    engine = model.nested(False, 2)
    far = model.psi.copy()
    far[0], far[3:] = 25.0, 4.0
    there = engine.evaluate(far)
    assert there.value > engine.value(model.psi)
    assert engine.value(model.psi) == pytest.approx(dense_laplace(model, model.psi, False), rel=1e-11)
    engine.value(np.full_like(far, np.nan))
    assert engine.value(model.psi) == pytest.approx(dense_laplace(model, model.psi, False), rel=1e-11)


def test_nan_parameters_are_infinite_and_keep_the_modes():
    model = Rows.draw(LOGIT, "nested")
    engine = model.nested(False, 2)
    engine.value(model.psi)
    before = [u.copy() for u in engine.u]
    assert engine.value(np.full_like(model.psi, np.nan)) == np.inf
    assert np.isnan(engine.evaluate(np.full_like(model.psi, np.nan)).gradient).all()
    assert all(np.array_equal(a, b) for a, b in zip(before, engine.u, strict=True))


@pytest.mark.parametrize("kind", NESTED)
def test_blocks_at_the_mode_are_those_of_a_look_at_all_rows(kind):
    model = Rows.draw(next(f for f in PAIRS if f.name == "gamma" and f.link == "log"), kind)
    found, engine = model.nested(True, 3).at_optimum(model.point, True), model.crossed(True)
    mode = engine.mode(model.psi)
    beta, theta, phi = model.parameters().split(model.psi)
    effects = tuple(u @ lam.T for u, lam in zip(mode.u, model.covariances.joint(theta), strict=True))
    sums = engine.sums(beta, effects, phi, True, True)
    gram = gram_of(engine.wiring, sums.diagonal, sums.dense, sums.cross, sums.xy)
    assert found.ll == pytest.approx(sums.ll, rel=1e-9)
    assert np.allclose(found.xy, gram.xy, rtol=1e-6)
    for t, term in enumerate(gram.terms):
        assert np.array_equal(found.levels[t], np.arange(term.n_levels))
        assert np.allclose(found.diagonal[t], term.diagonal, rtol=1e-6)
        assert np.allclose(found.dense[t], term.dense, rtol=1e-5, atol=1e-8)
        assert np.allclose(found.u[t], mode.u[t], atol=1e-5)
    for pair, block in gram.cross.items():
        assert np.array_equal(found.cross[pair].indices, block.indices)
        assert np.array_equal(found.cross[pair].indptr, block.indptr)
        assert np.allclose(found.cross[pair].data, block.data, rtol=1e-6)


def test_one_factor_has_the_blocks_of_the_other_engine():
    model = Rows.draw(LOGIT, "one slope", weighted=False)
    engine = model.nested(False)
    found = engine.at_optimum(model.point, engine.observed)
    beta, theta, phi = model.parameters().split(model.psi)
    shard, lam = model.shards(model.edges(1))[0], model.covariances.joint(theta)[0]
    z = np.array(model.terms[0][1])
    diagonal, dense, _, ll, _ = working_blocks(shard, found.u[0], np.arange(3), z, LOGIT, beta, lam, phi, False)
    assert np.allclose(found.diagonal[0], diagonal) and np.allclose(found.dense[0], dense)
    assert found.ll == pytest.approx(ll, rel=1e-12)
