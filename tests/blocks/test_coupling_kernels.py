"""The vector loops against SciPy's sparse products: every remainder of the columns, both types, both layouts of f."""

import numpy as np
import pytest
import scipy.sparse as sp
from numba import config
from numba.core.errors import TypingError

from bigmm.blocks.iterative import coupling_kernels as kernels

pytestmark = pytest.mark.interpreted

LEVELS, COLUMNS = 40, 30


class Sparse:
    """k matrices C_a (levels, columns) of one random pattern, as a stage keeps them."""

    def __init__(self, k, type_):
        rng = np.random.default_rng(k)
        pattern = sp.random_array((LEVELS, COLUMNS), density=0.2, rng=rng, format="csr")
        self.indptr, self.columns = pattern.indptr.astype(np.int64), pattern.indices.astype(np.int32)
        self.f = rng.standard_normal((pattern.nnz, k)).astype(type_)
        self.dense = [
            sp.csr_array((self.f[:, a].astype(float), pattern.indices, pattern.indptr), pattern.shape).toarray()
            for a in range(k)
        ]
        self.where = self.indptr[:-1], self.indptr, self.columns, self.f

    def numbers(self, *shape):
        return np.random.default_rng(9).standard_normal(shape)


@pytest.fixture(params=[(1, np.float64), (2, np.float64), (1, np.float32), (3, np.float32)], ids=str)
def sparse(request):
    return Sparse(*request.param)


@pytest.mark.parametrize("nv", [1, 3, 4, 7, 16, 21, 32, 55])
@pytest.mark.parametrize("type_", [np.float32, np.float64])
def test_through_levels(sparse, nv, type_):
    x, out = sparse.numbers(COLUMNS, nv).astype(type_), np.ones((COLUMNS, nv), type_)
    kernels.through_levels(0, LEVELS, *sparse.where, x, out)
    expected = 1.0 - sum(c.T @ (c @ x) for c in sparse.dense)
    np.testing.assert_allclose(out, expected, atol=1e-11 if type_ == np.float64 else 1e-3)


def test_a_range_of_levels_touches_no_other(sparse):
    x, out = sparse.numbers(COLUMNS, 5), np.zeros((COLUMNS, 5))
    for lo, hi in ((0, 7), (7, 7), (7, LEVELS)):
        kernels.through_levels(lo, hi, *sparse.where, x, out)
    np.testing.assert_allclose(out, -sum(c.T @ (c @ x) for c in sparse.dense), atol=1e-11)


def test_from_levels(sparse):
    w, out = sparse.numbers(LEVELS, len(sparse.dense), 6), np.zeros((COLUMNS, 6))
    kernels.from_levels(0, LEVELS, *sparse.where, w, out)
    np.testing.assert_allclose(out, -sum(c.T @ w[:, a] for a, c in enumerate(sparse.dense)), atol=1e-11)


def test_between_levels(sparse):
    k = len(sparse.dense)
    x, x_own = sparse.numbers(COLUMNS, 6), sparse.numbers(LEVELS, k, 6)
    own, out = np.ones((LEVELS, k, 6)), np.zeros((COLUMNS, 6))
    kernels.between_levels(0, LEVELS, sparse.indptr, sparse.columns, sparse.f, x, -x_own, own, out)
    for a, c in enumerate(sparse.dense):
        np.testing.assert_allclose(own[:, a], 1.0 + c @ x, atol=1e-11)
    np.testing.assert_allclose(out, sum(c.T @ x_own[:, a] for a, c in enumerate(sparse.dense)), atol=1e-11)


@pytest.mark.parametrize("given", [True, False])
def test_back_levels(sparse, given):
    k = len(sparse.dense)
    x, h = sparse.numbers(COLUMNS, 6), sparse.numbers(LEVELS, k, k)
    v = sparse.numbers(LEVELS, k, 6) if given else np.zeros((0, k, 6))
    out = np.empty((LEVELS, k, 6))
    kernels.back_levels(0, LEVELS, h, sparse.f, v, sparse.indptr, sparse.columns, x, out)
    inner = (v if given else 0.0) - np.stack([c @ x for c in sparse.dense], axis=1)
    np.testing.assert_allclose(out, np.einsum("lab,lac->lbc", h, inner), atol=1e-11)


@pytest.mark.skipif(config.DISABLE_JIT, reason="the interpreter takes any order")
def test_other_than_c_order_is_refused():
    sparse = Sparse(1, np.float64)
    x = np.asfortranarray(sparse.numbers(COLUMNS, 4))
    with pytest.raises(TypingError, match="C order"):
        kernels.through_levels(0, LEVELS, *sparse.where, x, np.zeros((COLUMNS, 4)))
