"""The iterative solver against the blocked factor: exact where it should be, within its own error bars elsewhere."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bigmm.blocks import analyse, parallel
from bigmm.blocks.exact import scatter
from bigmm.blocks.exact.factor import NotPositiveDefiniteError, factorize
from bigmm.blocks.exact.inverse import selected_inverse
from bigmm.blocks.exact.solve import quadratic, solve
from bigmm.blocks.iterative import factor as iterative
from bigmm.blocks.iterative import sampled, traces
from bigmm.blocks.iterative.krylov import conjugate_gradients, lanczos_quadrature
from bigmm.blocks.iterative.probes import deflation_basis, make_probes
from bigmm.blocks.iterative.structure import analyse_iterative
from bigmm.objective.krylov import PRECISION
from tests.oracle import Rows, Shape

SHAPES = {
    "crossed": Shape(((60, 1, False), (40, 1, False)), n=900),
    "crossed slopes": Shape(((60, 2, False), (40, 2, False)), n=900, shifted=True),
    "three crossed": Shape(((60, 2, False), (40, 2, False), (20, 1, False)), n=900),
    "nested and crossed": Shape(((80, 2, True), (40, 1, False), (25, 2, False)), n=900),
    "nested tail": Shape(((90, 1, False), (60, 2, True), (12, 1, False)), n=1500),
    "chain and crossed": Shape(((80, 1, True), (40, 1, True), (12, 2, False), (9, 1, False)), n=900),
    "two chains": Shape(((80, 1, True), (40, 1, False), (30, 2, True), (6, 1, False)), n=900),
    "two chains and crossed": Shape(
        ((80, 1, True), (40, 1, False), (30, 1, True), (16, 1, False), (9, 2, False)), n=900
    ),
}
PROBES = 200


class Both:
    """One model at one theta by both solvers."""

    def __init__(self, shape, seed=5):
        rows = Rows.draw(shape, seed)
        self.gram, covariances = rows.gram, rows.covariances
        theta = np.where(covariances.lower == 0, 0.6, 0.2)
        self.lams = covariances.working(self.gram, theta)
        self.exact = factorize(analyse(self.gram), self.lams)
        factor = iterative.factorize_iteratively(analyse_iterative(self.gram), self.lams, PRECISION, with_y=True)
        self.operator = factor.operator
        probes = make_probes(deflation_basis(self.operator, 6, 1), self.operator.size, PROBES, 2)
        self.factor = sampled.sample(factor, probes)


@pytest.fixture(scope="module", params=list(SHAPES))
def both(request):
    return Both(SHAPES[request.param])


def test_no_dense_tail_is_made(both):
    assert both.factor.structure.base.size == 0


def test_the_operator_is_symmetric_with_identity_blocks(both):
    whole = both.operator.apply(np.eye(both.operator.size))
    np.testing.assert_allclose(whole, whole.T, atol=1e-12)
    for t in both.factor.structure.tail:
        if t.term in both.operator.nested:
            continue
        for level in range(t.n_levels):
            own = slice(t.offset + level * t.width, t.offset + (level + 1) * t.width)
            np.testing.assert_allclose(whole[own, own], np.eye(t.width), atol=1e-12)


def test_conjugate_gradients_solve(both):
    whole = both.operator.apply(np.eye(both.operator.size))
    rhs = np.random.default_rng(0).standard_normal((both.operator.size, 4))
    rhs[:, 3] = 0.0
    solved = conjugate_gradients(both.operator, rhs, 1e-12)
    np.testing.assert_allclose(solved.x, np.linalg.solve(whole, rhs), atol=1e-9)
    np.testing.assert_allclose(solved.image, whole @ rhs, atol=1e-12)


def test_lanczos_quadrature_is_a_quadratic_form_of_the_function(both):
    whole = both.operator.apply(np.eye(both.operator.size))
    values, vectors = np.linalg.eigh(whole)
    rhs = np.random.default_rng(1).standard_normal((both.operator.size, 3))
    solved = conjugate_gradients(both.operator, rhs, 1e-13)
    got = lanczos_quadrature(solved, (rhs**2).sum(axis=0), np.log)
    expected = ((vectors.T @ rhs) ** 2 * np.log(values)[:, None]).sum(axis=0)
    np.testing.assert_allclose(got, expected, rtol=1e-8)


def test_what_needs_no_probe_is_exact_to_the_tolerance(both):
    assert both.factor.logdet_x == pytest.approx(both.exact.logdet_x, abs=1e-8)
    assert both.factor.pwrss == pytest.approx(both.exact.pwrss, rel=1e-8)
    ours, exact = iterative.solve(both.factor), solve(both.exact)
    np.testing.assert_allclose(ours.beta, exact.beta, rtol=1e-6, atol=1e-7)
    for a, b in zip(ours.effects, exact.effects, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_quadratic_forms(both):
    rng = np.random.default_rng(3)
    rhs = tuple(rng.standard_normal((t.n_levels, t.width, 3)) for t in both.gram.terms)
    rhs_x = rng.standard_normal((len(both.gram.xy) - 1, 3))
    np.testing.assert_allclose(
        iterative.quadratic(both.factor, rhs, rhs_x), quadratic(both.exact, rhs, rhs_x), rtol=1e-6, atol=1e-6
    )


def test_log_determinant_is_within_its_error_bar(both):
    off = abs(both.factor.logdet_z - both.exact.logdet_z)
    assert both.factor.logdet_error < 0.05
    assert off < 4.0 * both.factor.logdet_error + 1e-6


@pytest.mark.parametrize("with_fixed", [False, True])
def test_traces_are_within_their_error_bars(both, with_fixed):
    estimated = traces.summed_covariances(both.factor, with_fixed)
    truth = selected_inverse(both.exact, with_fixed=with_fixed, covariances=True).covariances
    for total, spread, blocks in zip(estimated.sums, estimated.spread, truth, strict=True):
        error = spread.std(axis=0, ddof=1) / np.sqrt(PROBES)
        exact = blocks.sum(axis=0)
        assert np.all(np.abs(total - exact) < 5.0 * error + 1e-5 * np.abs(exact).max())
        assert np.all(np.abs(total - exact) < 0.01 * np.abs(exact).max())
        np.testing.assert_allclose(spread.mean(axis=0), total, rtol=1e-6, atol=1e-9)


def test_the_same_seed_gives_the_same_bits():
    first, second = Both(SHAPES["crossed"]), Both(SHAPES["crossed"])
    assert first.factor.logdet_z == second.factor.logdet_z
    np.testing.assert_array_equal(first.factor.probes.vectors, second.factor.probes.vectors)


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    monkeypatch.setattr(scatter, "SMALL", 0)
    found = []
    for threads in (1, 3):
        with ThreadPoolExecutor(threads) as pool:
            monkeypatch.setattr(parallel, "_pool", lambda pid, pool=pool: pool)
            monkeypatch.setattr(parallel, "available_cores", lambda threads=threads: threads)
            found.append(Both(SHAPES["three crossed"]).factor)
    one, three = found
    assert (one.logdet_z, one.pwrss) == (three.logdet_z, three.pwrss)
    np.testing.assert_array_equal(one.solved.x, three.solved.x)


def test_an_indefinite_schur_complement_is_refused(both, monkeypatch):
    monkeypatch.setattr("bigmm.blocks.iterative.krylov.TailOperator.apply", lambda self, x: -x)
    with pytest.raises(NotPositiveDefiniteError, match="positive curvature"):
        conjugate_gradients(both.operator, np.ones((both.operator.size, 1)))
