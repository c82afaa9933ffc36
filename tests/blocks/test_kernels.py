"""Every kernel equals its NumPy twin, called with the arguments that real factorizations give it."""

import numpy as np
import pytest
from numba import config

from bigmm.blocks import compress, parallel
from bigmm.blocks.exact import factor, factor_kernels, inverse, inverse_kernels, solve, solve_kernels
from bigmm.blocks.structure import Stage
from bigmm.objective import Criterion
from bigmm.objective.conditional import level_variances
from tests.blocks import twins
from tests.oracle import SHAPES, Rows

pytestmark = pytest.mark.interpreted

SEEN: set[str] = set()


@pytest.fixture
def beside_twins(monkeypatch):
    """`run` calls kernel and twin on copies of the same buffers, compares everything, and goes on with the kernel's."""

    def copies(args):
        each = [copies(a) if isinstance(a, tuple) else a.copy() if isinstance(a, np.ndarray) else a for a in args]
        return type(args)(*each) if hasattr(args, "_fields") else each

    def compare(found, expected):
        for a, b in zip(found, expected, strict=True):
            if isinstance(a, (tuple, list)):
                compare(a, b)
            elif isinstance(a, (np.ndarray, float)):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)

    def run(kernel, n, grain, *args):
        found = []
        for lo, hi in parallel.ranges(n, 2):
            theirs = copies(args)
            expected = getattr(twins, kernel.__name__)(lo, hi, *theirs)
            result = kernel(lo, hi, *args)
            if isinstance(result, tuple) and kernel.__name__.startswith("eliminate"):
                result = (result[0], np.tril(result[1]))
            compare(
                [result if result is not None else 0.0, *args], [expected if expected is not None else 0.0, *theirs]
            )
            found.append(result)
        SEEN.add(kernel.__name__)
        return found

    for module in (factor, solve, inverse):
        monkeypatch.setattr(module, "run", run)


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_kernels_equal_their_twins(kind, beside_twins):
    model = Rows.draw(SHAPES[kind], 5)
    model_criterion = Criterion(model.gram, model.covariances, True)
    rng = np.random.default_rng(1)
    for theta in (rng.normal(size=model_criterion.n_theta), np.zeros(model_criterion.n_theta)):
        model_criterion.evaluate(theta)
        level_variances(model_criterion, theta)


def test_every_kernel_was_called():
    """Runs after the comparisons above (pytest keeps the order of a file)."""
    if SEEN and not config.DISABLE_JIT:  # empty when this test is selected alone
        everything = {**vars(factor_kernels), **vars(solve_kernels), **vars(inverse_kernels)}
        public = {name for name, value in everything.items() if hasattr(value, "py_func") and name[0] != "_"}
        parts = {"inverse_plus_identity", "times_own_transpose", "units_of", "shrink"}
        assert public - parts - {"invert", "score"} == SEEN - {"invert_levels", "score_levels"}


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_inverse_plus_identity(k):
    rng = np.random.default_rng(k)
    root, lam = rng.normal(size=(k + 2, k)), np.tril(rng.normal(size=(k, k)))
    lam[0] = 0.0
    found, expected = np.empty((k, k)), np.empty((k, k))
    inverse_kernels.inverse_plus_identity(root.T @ root, lam @ lam.T, np.ones(k), np.empty((k, 2 * k)), found)
    twins.inverse_plus_identity(root.T @ root, lam @ lam.T, None, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_inverse_plus_identity_pivots():
    """A first pivot of exactly zero: I + diagonal sigma is regular, but not without exchanging rows."""
    diagonal, sigma = np.array([[1.0, -1.0], [-1.0, 2.0]]), np.array([[1.0, 2.0], [2.0, 5.0]])
    assert (np.eye(2) + diagonal @ sigma)[0, 0] == 0.0
    found, expected = np.empty((2, 2)), np.empty((2, 2))
    inverse_kernels.inverse_plus_identity(diagonal, sigma, np.ones(2), np.empty((2, 4)), found)
    twins.inverse_plus_identity(diagonal, sigma, None, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e9, 1e12])
def test_inverse_plus_identity_of_covariates_of_any_unit(size):
    """S (I + D sigma)^-1 S^-1 is the inverse in units of the covariates, S = diag(1, size)."""
    rng = np.random.default_rng(3)
    root, lam, unit = rng.normal(size=(9, 2)), np.tril(rng.normal(size=(2, 2))), np.array([1.0, size])
    diagonal, sigma = root.T @ root, lam @ lam.T
    scaled = diagonal * np.outer(unit, unit)
    units = inverse_kernels.units_of(0, 1, scaled[None])
    found = np.empty((2, 2))
    inverse_kernels.inverse_plus_identity(scaled, sigma / np.outer(unit, unit), units, np.empty((2, 4)), found)
    expected = np.linalg.inv(np.eye(2) + diagonal @ sigma)
    np.testing.assert_allclose(found / unit[:, None] * unit, expected, rtol=1e-10)


def test_no_inverse_is_not_a_number():
    """Sums that have overflowed the digits: the search goes on elsewhere instead of ending with an error."""
    found = np.empty((2, 2))
    inverse_kernels.inverse_plus_identity(
        np.array([[1e20, 1e20], [1e20, 1e20]]), np.eye(2), np.ones(2), np.empty((2, 4)), found
    )
    assert np.isnan(found).any()


def test_sum_moments():
    from bigmm.blocks.compress import _sum_moments as sum_moments

    rng = np.random.default_rng(0)
    number, rows = rng.integers(0, 3, 50), rng.normal(size=(50, 4))
    found, expected = np.zeros((3, 4, 4)), np.zeros((3, 4, 4))
    sum_moments(number, rows, found)
    twins.sum_moments(number, rows, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_ranges_cover_everything_once():
    for n, grain in [(0, 4), (1, 4), (7, 4), (8, 4), (100_000, 2048), (10**7, 2048)]:
        pieces = parallel.ranges(n, grain)
        assert [lo for lo, _ in pieces[1:]] == [hi for _, hi in pieces[:-1]]
        assert (pieces[0][0], pieces[-1][1]) == (0, n)
        assert len(pieces) <= parallel.N_RANGES
        assert all(hi - lo >= min(grain, n) for lo, hi in pieces)


def test_ranges_change_nothing_but_rounding_and_threads_not_a_bit(monkeypatch):
    model = Rows.draw(SHAPES["nested and crossed"], 2)
    theta = np.linspace(0.3, 1.1, model.covariances.n_theta)

    def evaluate():
        return Criterion(model.gram, model.covariances, True).evaluate(theta)

    whole = evaluate()
    for module in (factor, solve, inverse):
        for name in ("GRAIN", "TAIL_GRAIN"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, 2)
    monkeypatch.setattr(Stage, "grain", 2)
    bits = []
    for cores in (1, 2, 4):
        monkeypatch.setattr(parallel, "available_cores", lambda cores=cores: cores)
        parallel._pool.cache_clear()
        found = evaluate()
        bits.append((found.value, found.gradient.tobytes(), found.hessian.tobytes()))
        np.testing.assert_allclose(found.value, whole.value, rtol=1e-13)
        np.testing.assert_allclose(found.gradient, whole.gradient, rtol=1e-10, atol=1e-11)
    parallel._pool.cache_clear()
    assert bits[0] == bits[1] == bits[2]


def test_compressed_blocks_use_the_same_kernels(beside_twins):
    rng = np.random.default_rng(0)
    from tests.blocks.test_compress import random_intercepts

    gram, covariances = random_intercepts(rng, levels=400, sizes=(2, 3))
    small = compress(gram)
    assert small is not gram
    Criterion(small, covariances, True).evaluate(np.array([0.7]))
