"""The tiled factorization against the dense Schur complement of the rows, and its steps against NumPy."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from scipy.linalg import block_diag

from bigmm.blocks import analyse
from bigmm.blocks.exact.factor import NotPositiveDefiniteError, factorize
from bigmm.blocks.structure import elimination_order
from bigmm.blocks.tiles import cholesky as tiles
from bigmm.blocks.tiles import kernels as tile_kernels
from bigmm.blocks.tiles import level3
from tests.blocks.test_iterative import SHAPES
from tests.oracle import Rows, Shape
from tests.results.oracle import indicator

STEPS = {"assemble": tiles.assemble, "update": tiles.update, "factor": tiles.factor, "solve": tiles.solve}


class Case:
    """One model at one theta: reduced, and the same matrix from its rows."""

    def __init__(self, name):
        self.rows = Rows.draw(SHAPES[name], 5)
        covariances, self.gram = self.rows.covariances, self.rows.gram
        self.lams = covariances.working(self.gram, np.where(covariances.lower == 0, 0.6, 0.2))
        self.reduced = tiles.reduce(analyse(self.gram, dense_tail=False), self.lams)

    def dense(self):
        """(N, N) Schur complement of the stages in Omega, working basis, by the definition."""
        rows, s = self.rows, self.rows.shift
        z, lams = [], []
        for (q, k, _), refs, covariates, lam in zip(rows.shape.terms, rows.refs, rows.z, self.lams, strict=True):
            z.append(indicator(refs, covariates - np.append(0.0, np.full(k - 1, s)), q))
            lams.append(np.kron(np.eye(q), lam))
        x = rows.x[:, rows.active] - np.append(0.0, np.full(rows.x.shape[1] - 1, s))[rows.active]
        chain, tail = elimination_order(self.gram)
        order = [*chain, *tail]
        columns = np.hstack([z[i] @ lams[i] for i in order] + [x, (rows.y - s)[:, None]])
        omega = columns.T @ (rows.w[:, None] * columns)
        n_random = sum(z[i].shape[1] for i in order)
        omega[:n_random, :n_random] += np.eye(n_random)
        gone = sum(z[i].shape[1] for i in chain)
        inner = np.linalg.solve(omega[:gone, :gone], omega[:gone, gone:])
        return omega[gone:, gone:] - omega[gone:, :gone] @ inner


@pytest.fixture(scope="module", params=list(SHAPES))
def case(request):
    return Case(request.param)


def walk(reduced, tile, writeable=False):
    """All results by name, each step done when it comes; asserts that no step changes what it may not."""
    tiling, results = tiles.Tiling(reduced.size, tile), {}
    for name, needs in tiles.schedule(tiling.n):
        if name[0] == "panel":
            results[name] = reduced.panel(*tiling.span(name[1]))
        elif name[0] == "pivots":
            results[name] = tiles.pivots(results[needs[0]])
        else:
            given = [results[need] for need in needs]
            if writeable and name[0] != "assemble":
                given[0] = given[0].copy()
            for array in given if name[0] != "assemble" else []:
                array.flags.writeable = False
            if writeable and name[0] != "assemble":
                given[0].flags.writeable = True
            results[name] = STEPS[name[0]](*given)
            if writeable and name[0] != "assemble":
                assert results[name] is given[0], "written over"
    return tiling, results


@pytest.mark.parametrize("tile", [1, 7, 16, 33, 1000])
def test_assembled_tiles_are_the_dense_schur_complement(case, tile):
    expected = case.dense()
    assert expected.shape == (case.reduced.size, case.reduced.size)
    tiling = tiles.Tiling(case.reduced.size, tile)
    panels = [case.reduced.panel(*tiling.span(i)) for i in range(tiling.n)]
    for i in range(tiling.n):
        for j in range(i + 1):
            rows, columns = slice(*tiling.span(i)), slice(*tiling.span(j))
            got = tiles.assemble(panels[i], panels[j]) if i != j else np.tril(tiles.assemble(panels[i]))
            want = expected[rows, columns] if i != j else np.tril(expected[rows, columns])
            np.testing.assert_allclose(got, want, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("tile", [5, 16, 33, 1000])
def test_the_factor_is_that_of_the_dense_matrix(case, tile):
    expected = np.linalg.cholesky(case.dense())
    tiling, results = walk(case.reduced, tile)
    for i in range(tiling.n):
        for j in range(i + 1):
            rows, columns = slice(*tiling.span(i)), slice(*tiling.span(j))
            got = results["solve", i, j] if i != j else np.tril(results["factor", i])
            np.testing.assert_allclose(got, expected[rows, columns], atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("tile", [4, 16, 1000])
def test_what_is_read_off_is_the_blocked_factors(case, tile):
    tiling, results = walk(case.reduced, tile)
    diagonal = np.concatenate([results["pivots", j] for j in range(tiling.n)])
    found = tiles.read_pivots(case.reduced, diagonal)
    exact = factorize(analyse(case.gram), case.lams)
    assert found.logdet_z == pytest.approx(exact.logdet_z, rel=1e-12)
    assert found.logdet_x == pytest.approx(exact.logdet_x, rel=1e-12)
    assert found.pwrss == pytest.approx(exact.pwrss, rel=1e-11)


def test_writing_over_a_tile_gives_the_same_bits(case):
    tiling, kept = walk(case.reduced, 7)
    _, over = walk(case.reduced, 7, writeable=True)
    for j in range(tiling.n):
        assert kept["pivots", j].tobytes() == over["pivots", j].tobytes()


def test_a_schedule_names_what_came_before_and_covers_the_triangle():
    for n in range(1, 9):
        seen = set()
        for name, needs in tiles.schedule(n):
            assert name not in seen and seen.issuperset(needs)
            seen.add(name)
        kinds = [name[0] for name in seen]
        assert kinds.count("assemble") == tiles.Tiling(n, 1).n_tiles == n * (n + 1) // 2
        assert kinds.count("update") == sum(j * (n - j) for j in range(n))
        assert kinds.count("solve") == n * (n - 1) // 2 and kinds.count("factor") == kinds.count("pivots") == n


@pytest.mark.parametrize("n", [1, 2, 3, 8, 29])
def test_no_more_tiles_live_than_predicted(n):
    order = list(tiles.schedule(n))
    last = {}
    for number, (_, needs) in enumerate(order):
        last |= dict.fromkeys(needs, number)
    alive, most = set(), 0
    for number, (name, needs) in enumerate(order):
        if name[0] not in ("panel", "pivots"):
            alive.add(name)
        if name[0] in ("update", "factor", "solve"):
            alive.discard(needs[0])  # written over
        most = max(most, len(alive))
        alive -= {need for need in needs if last[need] == number}
    assert most <= tiles.most_tiles(n) <= most + n + 1
    assert n < 8 or most < 0.6 * n * (n + 1) / 2


def test_factors_of_the_fixed_effects_are_refused():
    rows = Rows.draw(Shape(((12, 1, False), (5, 1, False)), fixed=4), 5)
    with pytest.raises(ValueError, match="random effects only"):
        tiles.reduce(analyse(rows.gram, dense_tail=False), rows.covariances.working(rows.gram, np.array([0.5, 0.5])))


def test_default_tiles():
    for size in (1, 100, 1145, 12_000, 59_050, 200_000, 1_000_000):
        tile = tiles.default_tile(size)
        assert tile % 256 == 0 and 1024 <= tile <= 4096
        assert tiles.Tiling(size, tile).n <= 32 or tile == 4096


# ---------------------------------------------------------------------------------------------------- kernels


def columns_of(rng, n_rows, n_columns, k):
    """A sparse (n_rows, k, n_columns) as CSC columns, and densely."""
    dense = rng.normal(size=(n_rows, k, n_columns)) * (rng.random((n_rows, 1, n_columns)) < 0.4)
    places = [np.flatnonzero(dense[:, 0, c]) for c in range(n_columns)]
    colptr = np.concatenate([[0], np.cumsum([len(p) for p in places])]).astype(np.int64)
    level = np.concatenate(places).astype(np.int32)
    values = np.concatenate([dense[p, :, c] for c, p in enumerate(places)])
    return (colptr, level, values), dense


@pytest.mark.parametrize("k", [1, 3])
def test_products_of_sparse_columns(k):
    rng = np.random.default_rng(k)
    left, a = columns_of(rng, 20, 6, k)
    right, b = columns_of(rng, 20, 9, k)
    start, column, values = tile_kernels.by_level(*right, 20)
    assert np.array_equal(np.diff(start), np.count_nonzero(b[:, 0], axis=1))
    assert all(np.all(np.diff(column[start[i] : start[i + 1]]) > 0) for i in range(20))
    out = rng.normal(size=(6, 9))
    expected = out - np.einsum("lkr,lkc->rc", a, b)
    tile_kernels.subtract_products(*left, start, column, values, out)
    np.testing.assert_allclose(out, expected, atol=1e-13)


def test_place():
    rng = np.random.default_rng(3)
    (colptr, row, value), dense = columns_of(rng, 20, 5, 1)
    out = np.zeros((7, 5))
    tile_kernels.place(colptr, row, value[:, 0], 6, 13, out)
    np.testing.assert_array_equal(out, dense[6:13, 0])


@pytest.mark.parametrize("shape", [(5, 3, 4), (1, 1, 1), (3, 7, 2), (4, 4, 1), (64, 65, 66)])
def test_level3_is_numpys(shape):
    rng = np.random.default_rng(0)
    a, b, c = shape
    target, left, right = rng.normal(size=(a, b)), rng.normal(size=(a, c)), rng.normal(size=(b, c))
    out = target.copy()
    level3.subtract_product(out, left, right)
    np.testing.assert_allclose(out, target - left @ right.T, atol=1e-13)
    square = left @ left.T + a * np.eye(a)
    out = square.copy()
    level3.subtract_square(out, left)
    np.testing.assert_allclose(np.tril(out), np.tril(square - left @ left.T), atol=1e-12)
    assert level3.cholesky(square) == 0
    lower = np.tril(square)
    np.testing.assert_allclose(lower @ lower.T, left @ left.T + a * np.eye(a), atol=1e-10)
    out = target.T.copy()
    level3.solve_transposed(out, square)
    np.testing.assert_allclose(out @ lower.T, target.T, atol=1e-11)


def test_level3_of_nothing():
    empty = np.zeros((0, 0))
    assert level3.cholesky(empty) == 0
    level3.subtract_product(np.ones((2, 0)), np.ones((2, 3)), np.ones((0, 3)))
    out = np.ones((2, 2))
    level3.subtract_square(out, np.ones((2, 0)))
    np.testing.assert_array_equal(out, 1.0)


def test_level3_refuses_what_it_would_read_wrongly():
    good = np.ones((3, 3))
    read_only = np.ones((3, 3))
    read_only.flags.writeable = False
    for bad in (np.ones((3, 3), np.float32), np.ones((3, 6))[:, ::2], np.ones((4, 3)), read_only):
        with pytest.raises(TypeError, match=r"float64 in C order|read-only"):
            level3.subtract_product(bad, good, good)
    with pytest.raises(TypeError, match="float64 in C order"):
        level3.solve_transposed(np.ones((2, 3)), np.ones((2, 2)))


def test_a_pivot_that_is_not_positive():
    matrix = block_diag(np.eye(3), -1.0, np.eye(2))
    assert level3.cholesky(matrix.copy()) == 4
    with pytest.raises(NotPositiveDefiniteError, match="pivot 4"):
        tiles.factor(matrix)


def test_level3_lets_other_threads_run():
    """SciPy's own wrappers hold the interpreter lock; then this thread would not be woken until it is over."""
    a = np.random.default_rng(0).normal(size=(1800, 1800))
    out = np.zeros((1800, 1800))

    def turns() -> int:
        """How often this thread was awake during one product."""
        begun, ended, count = threading.Event(), threading.Event(), 0

        def work() -> None:
            begun.set()
            level3.subtract_product(out, a, a)
            ended.set()

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()
        while not ended.wait(0.001):
            count += 1
        thread.join()
        return count

    # on a busy machine this thread may miss a product or two, but with the lock held it would miss all
    assert any(turns() > 5 for _ in range(50))
