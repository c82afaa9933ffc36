"""The tail's preconditioner against dense matrices: what it takes from S, its inverse on the tree, the first moment."""

from dataclasses import replace

import numpy as np
import pytest

from bigmm.blocks.analysis import analyse
from bigmm.blocks.exact.factor import NotPositiveDefiniteError, eliminate_stages, factorize
from bigmm.blocks.iterative import preconditioner
from bigmm.blocks.iterative import structure as row_structure
from bigmm.blocks.iterative.krylov import conjugate_gradients, tail_operator
from bigmm.blocks.iterative.structure import TailChain, analyse_iterative
from tests.oracle import Rows, Shape

SHAPES = {
    "two chains": Shape(((80, 1, True), (40, 1, False), (30, 1, True), (6, 1, False)), n=900),
    "slopes": Shape(((80, 2, True), (40, 1, False), (30, 2, True), (6, 2, False)), n=900, shifted=True),
    "three levels and a lone term": Shape(
        ((90, 1, True), (60, 1, True), (20, 1, False), (50, 2, True), (24, 1, True), (9, 2, False), (5, 1, False)),
        n=900,
    ),
}
ORDERS = {"two chains": None, "slopes": None, "three levels and a lone term": ([0, 1, 2], [3, 4, 5, 6])}


class Tail:
    """One model's tail: the operator, and S = Lambda'S_raw Lambda + I as the blocked factor leaves it."""

    def __init__(self, name: str, theta=(0.6, 0.2)):
        rows = Rows.draw(SHAPES[name], 5)
        gram = rows.gram
        lams = rows.covariances.working(gram, np.where(rows.covariances.lower == 0, *theta))
        self.analysed = analyse_iterative(gram, ORDERS[name])
        whole = self.analysed.whole
        self.operator = tail_operator(self.analysed, lams, eliminate_stages(whole, lams)[0])
        order = [stage.term for stage in whole.stages], [t.term for t in whole.tail]
        schur = factorize(analyse(gram, order=order), lams).schur[: whole.r_raw, : whole.r_raw]
        self.lam = np.zeros_like(schur)
        for t in whole.tail:
            self.lam[t.offset : t.stop, t.offset : t.stop] = np.kron(np.eye(t.n_levels), lams[t.term])
        full = np.tril(schur) + np.tril(schur, -1).T
        self.schur = self.lam.T @ full @ self.lam + np.eye(len(schur))
        self.tree = self._tree(gram)

    def _tree(self, gram) -> np.ndarray:
        """Which entries P has: of a level with itself and with what contains it."""
        out = np.zeros(self.schur.shape, bool)
        for chain in self.analysed.tail:
            for place in chain.places:
                for above in chain.places:
                    own = np.arange(place.n_levels)
                    other = own if place is above else None
                    if place.term < above.term:
                        other = gram.cross[place.term, above.term].indices
                    if other is None:
                        continue
                    for a in range(place.width):
                        for b in range(above.width):
                            i, j = place.offset + own * place.width + a, above.offset + other * above.width + b
                            out[i, j] = out[j, i] = True
        return out

    @property
    def preconditioner(self) -> np.ndarray:
        """P from the operator's own coordinates."""
        spherical = np.linalg.solve(self.lam, self.operator.raw(np.eye(self.operator.size)))
        return np.linalg.inv(spherical @ spherical.T)


@pytest.fixture(scope="module", params=list(SHAPES))
def tail(request):
    return Tail(request.param)


def test_chains_are_found():
    assert [[t.term for t in chain.places] for chain in Tail("two chains").analysed.tail] == [[2, 3]]
    found = Tail("three levels and a lone term").analysed.tail
    assert [[t.term for t in chain.places] for chain in found] == [[3, 4, 5], [6]]
    assert Tail("three levels and a lone term").operator.nested == {3, 4, 5}


def test_the_preconditioner_is_s_on_the_tree_and_nothing_elsewhere(tail):
    expected = np.where(tail.tree, tail.schur, 0.0)
    np.testing.assert_allclose(tail.preconditioner, expected, atol=1e-10 * np.abs(expected).max())


def test_the_operator_is_s_between_both_halves(tail):
    raw = tail.operator.raw(np.eye(tail.operator.size))
    spherical = np.linalg.solve(tail.lam, raw)
    whole = tail.operator.apply(np.eye(tail.operator.size))
    np.testing.assert_allclose(whole, spherical.T @ tail.schur @ spherical, atol=1e-11)
    np.testing.assert_allclose(tail.operator.normalised(np.eye(tail.operator.size)), raw.T, atol=1e-14)
    small = tail.operator.apply(np.eye(tail.operator.size, dtype=np.float32))
    assert small.dtype == np.float32
    np.testing.assert_allclose(small, whole, atol=1e-5)


def test_the_log_determinant_has_the_first_moment(tail):
    whole = tail.operator.apply(np.eye(tail.operator.size))
    moment = np.trace(whole) - tail.operator.size
    assert abs(moment) > 1e-6
    expected = np.linalg.slogdet(np.where(tail.tree, tail.schur, 0.0))[1] + moment
    assert tail.operator.logdet == pytest.approx(expected, rel=1e-12)


def test_blocks_of_its_inverse(tail):
    inverse = tail.lam @ np.linalg.inv(np.where(tail.tree, tail.schur, 0.0)) @ tail.lam.T
    for t in tail.analysed.whole.tail:
        own = inverse[t.offset : t.stop, t.offset : t.stop].reshape(t.n_levels, t.width, t.n_levels, t.width)
        each = np.arange(t.n_levels)
        np.testing.assert_allclose(
            tail.operator.diagonal_blocks()[t.term], own[each, :, each, :], rtol=1e-9, atol=1e-13
        )


def test_a_tree_that_is_not_positive_leaves_the_diagonal_blocks(monkeypatch):
    usual, tried = preconditioner.eliminate_stages, []

    def refused(structure, lams):
        parts, logdet, vv = usual(structure, lams)
        tried.append(bool(structure.stages[0].data.any()))
        return parts, np.nan if tried[-1] else logdet, vv

    monkeypatch.setattr(preconditioner, "eliminate_stages", refused)
    tail = Tail("slopes")
    assert tried == [True, False]
    whole = tail.operator.apply(np.eye(tail.operator.size))
    for t in tail.analysed.whole.tail:
        for level in range(t.n_levels):
            own = slice(t.offset + level * t.width, t.offset + (level + 1) * t.width)
            np.testing.assert_allclose(whole[own, own], np.eye(t.width), atol=1e-12)
    spherical = np.linalg.solve(tail.lam, tail.operator.raw(np.eye(tail.operator.size)))
    np.testing.assert_allclose(whole, spherical.T @ tail.schur @ spherical, atol=1e-11)
    monkeypatch.setattr(preconditioner, "eliminate_stages", lambda *a: (usual(*a)[0], np.nan, None))
    with pytest.raises(NotPositiveDefiniteError, match="diagonal block"):
        Tail("slopes")


def test_conjugate_gradients_need_fewer_iterations():
    rows = Rows.draw(Shape(((700, 1, True), (300, 1, False), (250, 1, True), (8, 1, False)), n=20_000), 5)
    gram, lams = rows.gram, rows.covariances.working(rows.gram, np.full(4, 0.3))
    analysed = analyse_iterative(gram)
    lone = tuple(TailChain((t,), row_structure._alone(gram, [t.term])) for t in analysed.whole.tail)
    stages, iterations = eliminate_stages(analysed.whole, lams)[0], []
    for structure in (analysed, replace(analysed, tail=lone)):
        operator = tail_operator(structure, lams, stages)
        rhs = np.random.default_rng(0).standard_normal((operator.size, 4))
        iterations.append(conjugate_gradients(operator, rhs).iterations)
    assert iterations[1] > 1.5 * iterations[0]
