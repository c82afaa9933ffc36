"""The iterative solver of crossed terms beside the exact one, which `test_gradient` checks against dense matrices."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bigmm.blocks.exact.factor import NotPositiveDefiniteError
from bigmm.blocks.gram import CrossBlock
from bigmm.blocks.iterative.krylov import MAX_ITERATIONS
from bigmm.blocks.iterative.probes import Probes
from bigmm.families import family
from bigmm.laplace import working_sums
from bigmm.laplace.block_layout import LinearPredictor, find_entries
from bigmm.laplace.montecarlo import gradient_spread, probe_error
from bigmm.objective.krylov import KrylovSolver, working_accuracy
from tests.laplace import models
from tests.laplace.models import Rows

FAMILIES = [
    family("bernoulli"),
    family("poisson"),
    family("bernoulli", "cloglog"),
    family("gamma", "log"),
    family("negative_binomial"),
]
KINDS = {
    "crossed": models.KINDS["crossed"],
    "slopes": ((9, (0, 1), False), (6, (0, 1), False)),
    "three": ((9, (0,), False), (6, (0, 1), False), (4, (0,), False)),
    "nested beside crossed": ((12, (0,), True), (5, (0, 1), False), (4, (0,), False)),
    "four": ((9, (0,), False), (8, (0,), False), (6, (0, 1), False), (4, (0,), False)),
    "two chains": ((12, (0,), True), (8, (0,), False), (7, (0, 1), True), (3, (0,), False)),
}


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    for name, terms in KINDS.items():
        monkeypatch.setitem(models.KINDS, name, terms)


def iterative(model: Rows, probes=4, deflation=0, seed=0, kind=None) -> KrylovSolver:
    pattern = model.pattern
    return KrylovSolver(pattern, probes, deflation, seed, accuracy=working_accuracy(pattern, kind))


def all_deflated(solver: KrylovSolver) -> KrylovSolver:
    """Every direction is in the basis: nothing is left to chance."""
    r = solver.structure.r_raw
    solver.probes = Probes(np.eye(r), np.zeros((r, 2)))
    return solver


@pytest.mark.parametrize("profile", [False, True], ids=["nagq=1", "nagq=0"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("response", FAMILIES, ids=str)
def test_with_a_full_basis_value_and_gradient_are_exact(response, kind, profile):
    model = Rows.draw(response, kind, n=90)
    observed, psi = response.has_dispersion, model.psi[3:] if profile else model.psi
    expected = model.crossed(observed, profile).evaluate(psi)
    found = model.crossed(observed, profile, count=3, solver=all_deflated(iterative(model))).evaluate(psi)
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    assert np.abs(found.gradient - expected.gradient).max() <= 1e-8 * np.abs(expected.gradient).max()
    assert np.abs(found.hessian - expected.hessian).max() <= 2e-3 * np.abs(expected.hessian).max()  # loose solves


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_is_good_to_its_digits(kind):
    model = Rows.draw(FAMILIES[0], kind, n=90)
    expected = model.crossed(False).evaluate(model.psi)
    found = model.crossed(False, solver=all_deflated(iterative(model, kind=np.float32))).evaluate(model.psi)
    assert found.value == pytest.approx(expected.value, rel=1e-6)
    assert np.abs(found.gradient - expected.gradient).max() <= 1e-3 * np.abs(expected.gradient).max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("response", [FAMILIES[0], FAMILIES[4]], ids=str)
def test_probes_are_unbiased(response, kind):
    """Over many probes the estimates meet the exact ones within their own errors."""
    model = Rows.draw(response, kind, n=90)
    observed = response.has_dispersion
    exact = model.crossed(observed).evaluate(model.psi)
    engine = model.crossed(observed, solver=iterative(model, probes=2000, deflation=2))
    found = engine.evaluate(model.psi)
    each, logdet_error = gradient_spread(engine, model.psi)
    error = each.std(axis=0, ddof=1) / np.sqrt(len(each))
    assert abs(found.value - exact.value) < 4.0 * logdet_error + 1e-8
    assert np.all(np.abs(found.gradient - exact.gradient) < 4.0 * error + 1e-6 * np.abs(exact.gradient).max())
    assert 1e-5 < logdet_error < 0.05


@pytest.mark.parametrize("profile", [False, True], ids=["nagq=1", "nagq=0"])
@pytest.mark.parametrize("response", [FAMILIES[1], FAMILIES[3]], ids=str)
def test_what_each_probe_says_averages_to_the_gradient(response, profile):
    """The spread follows the parameters directly, the gradient by way of an adjoint: their means differ by a constant
    that no probe changes."""
    model = Rows.draw(response, "slopes", n=90)
    psi, observed = model.psi[3:] if profile else model.psi, response.has_dispersion
    differences = []
    for seed in (1, 2):
        engine = model.crossed(observed, profile, solver=iterative(model, probes=3, seed=seed))
        gradient = engine.evaluate(psi).gradient
        differences.append(gradient - gradient_spread(engine, psi)[0].mean(axis=0))
    assert np.abs(differences[0] - differences[1]).max() < 1e-7 * np.abs(gradient).max()


def test_error_bars_are_those_of_other_seeds():
    model = Rows.draw(FAMILIES[0], "crossed", n=90)
    values, stated = [], []
    for seed in range(30):
        engine = model.crossed(False, solver=iterative(model, probes=6, seed=seed))
        values.append(engine.evaluate(model.psi).gradient)
        stated.append(probe_error(engine, model.psi))
    noise = np.cov(np.array(values).T)
    inverse = np.linalg.inv(engine.evaluate(model.psi).hessian)
    actual = np.sqrt(np.diagonal(inverse @ noise @ inverse))
    claimed = np.sqrt(np.mean([error.parameters**2 for error in stated], axis=0))
    np.testing.assert_allclose(claimed, actual, rtol=0.4)


def test_more_probes_are_closer():
    model = Rows.draw(FAMILIES[0], "three", n=120)
    solver = iterative(model, probes=4, deflation=1)
    engine = model.crossed(False, solver=solver)
    first = probe_error(engine, model.psi)
    for _ in range(5):
        solver = solver.enlarged(2 * solver.n_probes, 2 * solver.n_deflation)
    engine.use(solver)
    last = probe_error(engine, model.psi)
    # the basis has no more than a quarter of the tail's columns, and no more are counted
    assert (solver.n_probes, solver.n_deflation) == (128, solver.probes.basis.shape[1])
    assert last.objective < 0.5 * first.objective and last.share < 0.5 * first.share


@pytest.mark.parametrize("solver", ["exact", "iterative"])
def test_cuts_into_shards_change_rounding_only(solver):
    model = Rows.draw(FAMILIES[1], "slopes", n=90)
    found = []
    for count in (1, 4):
        chosen = iterative(model, probes=5, deflation=1) if solver == "iterative" else None
        found.append(model.crossed(False, count=count, solver=chosen).evaluate(model.psi))
    assert found[0].value == pytest.approx(found[1].value, rel=1e-12)
    np.testing.assert_allclose(found[0].gradient, found[1].gradient, rtol=1e-8, atol=1e-8)


def test_a_shard_adds_to_its_own_levels_only():
    model = Rows.draw(FAMILIES[0], "crossed", n=90)
    engine = model.crossed(False, count=4)
    effects = tuple(np.zeros_like(u) for u in engine.u)
    predictor = LinearPredictor(model.psi[:3], effects, 1.0, False)
    parts = engine.shards.map(working_sums.working_part, engine.rules, predictor, True, np.dtype(float))
    own = [part.windows[0] for part in parts]
    assert all(first + count <= nxt for (first, count), (nxt, _) in pairwise(own))
    entries = engine.wiring.pattern.cross[0, 1].indptr[-1]
    assert sum(len(part.cross) for part in parts) <= entries
    whole = engine.sums(model.psi[:3], effects, 1.0, False, True)
    single = model.crossed(False).sums(model.psi[:3], effects, 1.0, False, True)
    np.testing.assert_allclose(whole.cross, single.cross, rtol=1e-14)
    np.testing.assert_allclose(whole.dense, single.dense, rtol=1e-12, atol=1e-14)


def test_entries_are_found_by_halving():
    rng = np.random.default_rng(0)
    filled = rng.random((7, 9)) < 0.4
    filled[:, 0] |= ~filled.any(axis=1)
    rows, columns = np.nonzero(filled)
    indptr = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int64)
    shuffled = rng.permutation(len(rows))
    found = find_entries(indptr, columns.astype(np.int32), rows[shuffled].astype(np.int32), columns[shuffled])
    np.testing.assert_array_equal(found, shuffled)


def test_theta_at_zero_is_no_trouble():
    model = Rows.draw(FAMILIES[1], "slopes", n=90)
    psi = model.psi.copy()
    psi[3:6] = 0.0  # the first term is gone
    expected = model.crossed(False).evaluate(psi)
    engine = model.crossed(False, solver=all_deflated(iterative(model)))
    engine.evaluate(model.psi)  # modes to start from that this theta cannot have
    found = engine.evaluate(psi)
    assert found.value == pytest.approx(expected.value, rel=1e-10)
    assert np.abs(found.gradient - expected.gradient).max() <= 1e-6 * np.abs(expected.gradient).max()
    # the curvature there says whether a variance of 0 is a minimum: from a scale close by, so good to its square
    scales = [3, 5]
    np.testing.assert_allclose(
        np.diagonal(found.hessian)[scales], np.diagonal(expected.hessian)[scales], rtol=0.1, atol=0.5
    )


def test_no_mode_and_no_convergence_are_values(monkeypatch):
    model = Rows.draw(family("poisson", "identity"), "crossed", n=90)
    engine = model.crossed(True, solver=iterative(model))
    far = model.psi.copy()
    far[0] = -50.0
    assert engine.value(far) == np.inf and np.isinf(engine.evaluate(far).value)
    with pytest.raises(NotPositiveDefiniteError, match="no mode"):
        engine.at_mode(far, True)
    monkeypatch.setattr("bigmm.blocks.iterative.krylov.MAX_ITERATIONS", 0)
    assert MAX_ITERATIONS > 0
    model = Rows.draw(FAMILIES[0], "crossed", n=90)
    assert model.crossed(False, solver=iterative(model)).value(model.psi) == np.inf


def test_numbers_in_the_pattern_take_no_memory():
    model = Rows.draw(FAMILIES[0], "crossed", n=90)
    blocks = model.crossed(False).wiring.pattern.cross.values()
    assert all(isinstance(b, CrossBlock) and b.data.strides == (0, 0, 0) for b in blocks)
