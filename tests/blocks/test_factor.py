"""The blocked factor against one dense Omega: determinants, solves, products, quadratic forms, selected inverse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmm.blocks import analyse
from bigmm.blocks.exact.factor import NotPositiveDefiniteError, factorize
from bigmm.blocks.exact.inverse import selected_inverse
from bigmm.blocks.exact.rows import row_quadratics
from bigmm.blocks.exact.solve import multiply, quadratic, residual_products, solve
from tests.oracle import SHAPES, Rows, thetas

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


class Whole:
    """Omega of one model in working coordinates, dense: columns Lambda'Z of each term, then X (factors', dense)."""

    def __init__(self, model, theta):
        self.model, gram = model, model.gram
        self.gram = gram
        self.lams = model.covariances.working(gram, theta)
        sizes = [t.n_levels * t.width for t in gram.terms]
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        n, m = self.starts[-1], len(gram.xy)
        a = np.zeros((n + m, n + m))
        for j, t in enumerate(gram.terms):
            for i in range(t.n_levels):
                own = self.place(j, i)
                a[own, own] = t.diagonal[i]
                a[own, n:] = t.dense[i]
        for (j, k), block in gram.cross.items():
            for i in range(gram.terms[j].n_levels):
                for e in range(block.indptr[i], block.indptr[i + 1]):
                    a[self.place(j, i), self.place(k, block.indices[e])] = block.data[e]
        a[n:, n:] = gram.xy
        self.a = np.triu(a) + np.triu(a, 1).T
        for j, t in enumerate(gram.terms):  # diagonal blocks were given whole
            for i in range(t.n_levels):
                self.a[self.place(j, i), self.place(j, i)] = t.diagonal[i]
        scale, identity = [], []
        for t, lam in zip(gram.terms, self.lams, strict=True):
            scale.append(np.kron(np.eye(t.n_levels), lam) if t.penalized else t.contrast)
            identity += [float(t.penalized)] * scale[-1].shape[1]
        width = sum(s.shape[1] for s in scale)
        self.scale = np.zeros((n + m, width + m))
        at = 0
        for j, s in enumerate(scale):
            self.scale[self.starts[j] : self.starts[j + 1], at : at + s.shape[1]] = s
            at += s.shape[1]
        self.scale[n:, at:] = np.eye(m)
        self.identity = np.array(identity + [0.0] * m)
        self.omega = self.scale.T @ self.a @ self.scale + np.diag(self.identity)

    def place(self, j, i):
        at = self.starts[j] + i * self.gram.terms[j].width
        return slice(at, at + self.gram.terms[j].width)

    @property
    def zx_inverse(self):
        """B Omega^-1 B' without the response, raw columns."""
        b = self.scale[:-1, :-1]
        return b @ np.linalg.solve(self.omega[:-1, :-1], b.T)

    def factor(self):
        return factorize(analyse(self.gram), self.lams)


def every(test):
    """A few examples of every kind of structure."""
    return pytest.mark.parametrize("kind", sorted(SHAPES))(settings(max_examples=4)(test))


def drawn(kind, data):
    model = Rows.draw(SHAPES[kind], data.draw(st.integers(0, 2**31)))
    return Whole(model, data.draw(thetas(model.covariances)))


@every
@given(st.data())
def test_determinants_and_residual(kind, data):
    whole = drawn(kind, data)
    factor = whole.factor()
    lower = np.linalg.cholesky(whole.omega)
    random = whole.identity == 1.0
    logs = 2.0 * np.log(np.diagonal(np.linalg.cholesky(whole.omega[np.ix_(random, random)])))
    assert factor.logdet_z == pytest.approx(logs.sum(), rel=1e-9, abs=1e-9)
    total = 2.0 * np.log(np.diagonal(lower)[:-1]).sum()
    assert factor.logdet_z + factor.logdet_x == pytest.approx(total, rel=1e-9, abs=1e-9)
    assert factor.pwrss == pytest.approx(lower[-1, -1] ** 2, rel=1e-9)


@every
@given(st.data())
def test_solution(kind, data):
    whole = drawn(kind, data)
    found = solve(whole.factor())
    solution = np.linalg.solve(whole.omega[:-1, :-1], whole.omega[:-1, -1])
    np.testing.assert_allclose(found.beta, solution[whole.identity[:-1] == 0.0], **CLOSE)
    expected = whole.scale[:-1, :-1] @ solution
    np.testing.assert_allclose(
        np.concatenate([e.ravel() for e in found.effects]), expected[: whole.starts[-1]], **CLOSE
    )


@every
@given(st.data())
def test_products(kind, data):
    whole = drawn(kind, data)
    rng = np.random.default_rng(0)
    x = tuple(rng.normal(size=(t.n_levels, t.width, 3)) for t in whole.gram.terms)
    found = multiply(analyse(whole.gram), x)
    flat = np.concatenate([a.reshape(-1, 3) * float(t.penalized) for a, t in zip(x, whole.gram.terms, strict=True)])
    expected = whole.a[: whole.starts[-1], : whole.starts[-1]] @ flat
    for j, t in enumerate(whole.gram.terms):
        if t.penalized:
            own = slice(whole.starts[j], whole.starts[j + 1])
            np.testing.assert_allclose(found[j].reshape(-1, 3), expected[own], **CLOSE)


@every
@given(st.data())
def test_residual_products(kind, data):
    whole = drawn(kind, data)
    solution = solve(whole.factor())
    found = residual_products(analyse(whole.gram), whole.lams, solution)
    scaled = np.linalg.solve(whole.omega[:-1, :-1], whole.omega[:-1, -1])
    expected = whole.a[:, -1] - whole.a[:, :-1] @ (whole.scale[:-1, :-1] @ scaled)
    for j, t in enumerate(whole.gram.terms):
        assert found[j].shape == (t.n_levels, t.width)
        if t.penalized:
            own = expected[whole.starts[j] : whole.starts[j + 1]]
            np.testing.assert_allclose(found[j].ravel(), own, **CLOSE)


@every
@given(st.data())
def test_quadratic_forms(kind, data):
    whole = drawn(kind, data)
    rng = np.random.default_rng(0)
    rhs = tuple(rng.normal(size=(t.n_levels, t.width, 3)) for t in whole.gram.terms)
    rhs_x = rng.normal(size=(len(whole.gram.xy) - 1, 3))
    flat = np.concatenate([*[a.reshape(-1, 3) for a in rhs], rhs_x])
    np.testing.assert_allclose(quadratic(whole.factor(), rhs, rhs_x), flat.T @ whole.zx_inverse @ flat, **CLOSE)


@every
@given(st.data())
def test_quadratic_forms_of_rows(kind, data):
    whole = drawn(kind, data)
    gram, rng, n = whole.gram, np.random.default_rng(0), 11
    random = [t for t in gram.terms if t.penalized]
    refs = tuple(rng.integers(-1, t.n_levels, n) for t in random)
    z = tuple(rng.normal(size=(n, t.width)) for t in random)
    wide = whole.scale.shape[1] - 1 - sum(t.n_levels * t.width for t in random)
    x = rng.normal(size=(n, wide))
    expected = []
    for i in range(n):
        full = np.zeros(whole.starts[-1])
        for j, (r, z_j) in enumerate(zip(refs, z, strict=True)):
            if r[i] >= 0:
                full[whole.place(j, r[i])] = z_j[i]
        rhs = whole.scale[: whole.starts[-1], :-1].T @ full
        rhs[whole.identity[:-1] == 0.0] = x[i]
        expected.append(rhs @ np.linalg.solve(whole.omega[:-1, :-1], rhs))
    np.testing.assert_allclose(row_quadratics(whole.factor(), x, refs, z), expected, **CLOSE)


@every
@given(st.data(), st.booleans())
def test_selected_inverse(kind, data, with_fixed):
    whole = drawn(kind, data)
    found = selected_inverse(whole.factor(), with_fixed=with_fixed, covariances=True)
    used = np.append(whole.identity[:-1] == 1.0, False) | (
        with_fixed & (np.arange(len(whole.omega)) < len(whole.omega) - 1)
    )
    b = whole.scale[:, used]
    inverse = b @ np.linalg.solve(whole.omega[np.ix_(used, used)], b.T)
    projected = whole.a - whole.a @ inverse @ whole.a
    for j, t in enumerate(whole.gram.terms):
        if not t.penalized:
            assert found.projected[j] is None
            continue
        places = [whole.place(j, i) for i in range(t.n_levels)]
        np.testing.assert_allclose(found.projected[j], sum(projected[p, p] for p in places), rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(found.covariances[j], [inverse[p, p] for p in places], **CLOSE)


def test_not_positive_definite_is_an_error():
    model = Rows.draw(SHAPES["crossed"], 0)
    gram = model.gram
    gram.xy[-1, -1] = 0.0
    with pytest.raises(NotPositiveDefiniteError, match=r"pivot \d+ of \d+ is not positive"):
        factorize(analyse(gram), model.covariances.working(gram, np.ones(2)))


@pytest.mark.parametrize("size", [1e9, 1e200])
def test_a_scale_so_large_that_rounding_eats_the_identity_is_an_error(size):
    """D = lam'A lam + I of a level with one row: the second pivot is 1, or what rounding leaves of it."""
    model = Rows.draw(SHAPES["one slope"], 0)
    gram = model.gram
    gram.terms[0].diagonal[:] = 1.0
    with pytest.raises(NotPositiveDefiniteError):
        factorize(analyse(gram), (size * np.eye(2),))
