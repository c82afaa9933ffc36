"""Identical blocks share one factor: criterion, gradient, curvature and minimum stay what they are."""

import numpy as np
import pytest

from bigmm.blocks import Gram, TermBlock, compress
from bigmm.blocks.compress import classes
from bigmm.objective import Criterion, ModelCovariance, TermCovariance
from bigmm.search.linear import minimize_criterion
from tests.oracle import SHAPES, Rows


def grouped(rng, z_of_level, weights=None):
    """Gram of y ~ 1 + x + (z | g) with the given (n_l, k) covariates per level."""
    k = z_of_level[0].shape[1]
    q, n = len(z_of_level), sum(len(z) for z in z_of_level)
    diagonal, dense, xy = np.zeros((q, k, k)), np.zeros((q, k, 3)), np.zeros((3, 3))
    for i, z in enumerate(z_of_level):
        w = np.ones(len(z)) if weights is None else rng.choice(weights, len(z))
        y = z @ rng.normal(size=k) + rng.normal(size=len(z))
        rows = np.column_stack([np.ones(len(z)), rng.normal(size=len(z)), y])
        diagonal[i], dense[i] = z.T @ (w[:, None] * z), z.T @ (w[:, None] * rows)
        xy += rows.T @ (w[:, None] * rows)
    gram = Gram(
        (TermBlock("g", diagonal, dense, np.eye(k)),),
        {},
        xy,
        n,
        0.0,
        np.eye(2),
        0.0,
        np.eye(2)[0],
        np.ones(2, bool),
        np.arange(2),
        1.0,
    )
    template = TermCovariance("g", tuple(map(str, range(k))), 0, tuple(range(k)), 0)
    return gram, ModelCovariance((template,), (k,))


def random_intercepts(rng, levels, sizes):
    return grouped(rng, [np.ones((size, 1)) for size in rng.choice(sizes, levels)])


def balanced_slopes(rng, levels):
    designs = [np.column_stack([np.ones(5), np.arange(5.0)]), np.column_stack([np.ones(4), np.arange(4.0) - 1.5])]
    return grouped(rng, [designs[i % 2] for i in range(levels)])


def models():
    rng = np.random.default_rng(3)
    yield "random intercept", *random_intercepts(rng, 300, (2, 3, 5, 9))
    yield "random slope", *balanced_slopes(rng, 240)
    yield "weights that are whole numbers", *grouped(rng, [np.ones((2, 1))] * 200, weights=(1.0, 2.0))
    yield "weights that are not", *grouped(rng, [np.ones((2, 1))] * 400, weights=(0.5, 1.25))


MODELS = {name: (gram, covariances) for name, gram, covariances in models()}


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_same_criterion_with_fewer_rows(name, reml):
    gram, covariances = MODELS[name]
    small = compress(gram)
    assert len(small.terms[0].diagonal) * 4 <= len(gram.terms[0].diagonal)
    assert small.terms[0].multiplicity.sum() == pytest.approx(gram.terms[0].n_levels)
    whole, few = Criterion(gram, covariances, reml), Criterion(small, covariances, reml)
    rng = np.random.default_rng(0)
    for theta in [*rng.normal(size=(3, covariances.n_theta)), np.zeros(covariances.n_theta)]:
        a, b = whole.evaluate(theta), few.evaluate(theta)
        assert b.value == pytest.approx(a.value, rel=1e-12)
        scale = max(1.0, np.abs(a.hessian).max())
        np.testing.assert_allclose(b.gradient, a.gradient, rtol=1e-9, atol=1e-11 * scale)
        np.testing.assert_allclose(b.hessian, a.hessian, rtol=1e-9, atol=1e-11 * scale)


@pytest.mark.parametrize("name", MODELS)
def test_same_minimum(name):
    gram, covariances = MODELS[name]
    whole, few = (minimize_criterion(Criterion(g, covariances, True), "newton") for g in (gram, compress(gram)))
    assert whole.converged
    np.testing.assert_allclose(few.theta, whole.theta, rtol=1e-7, atol=1e-9)
    assert few.value == pytest.approx(whole.value, rel=1e-12)


@pytest.mark.parametrize("kind", ["crossed", "nested", "fixed", "one wide"])
def test_left_alone_where_it_does_not_apply_or_pay(kind):
    gram = Rows.draw(SHAPES[kind], 0).gram
    assert compress(gram) is gram


@pytest.mark.parametrize("name", ["random intercept", "random slope", "weights that are whole numbers"])
def test_classes_of_parts_merge_to_those_of_the_whole(name):
    term = MODELS[name][0].terms[0]
    cuts = (slice(0, 90), slice(90, None))
    parts = [classes(TermBlock("g", term.diagonal[c], term.dense[c], term.basis)) for c in cuts]
    merged, whole = parts[0].merge(parts[1]), classes(term)
    order = [np.lexsort(found.diagonal.reshape(len(found.diagonal), -1).T) for found in (merged, whole)]
    np.testing.assert_array_equal(merged.diagonal[order[0]], whole.diagonal[order[1]])
    np.testing.assert_array_equal(merged.counts[order[0]], whole.counts[order[1]])
    np.testing.assert_allclose(merged.moments[order[0]], whole.moments[order[1]], rtol=1e-12, atol=1e-12)
    assert merged.counts.sum() == term.n_levels
