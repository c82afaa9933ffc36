"""Solving for a right-hand side that is not the response, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest

from bigmm.blocks.exact.rhs import solve_for
from tests.blocks.models import GENERAL, dense_lambda, dense_z, factor_of, theta_of
from tests.oracle import Rows


def system(rows: Rows, theta: np.ndarray):
    """(Lambda, M, Lambda'Z'WX, X'WX) dense."""
    lam, z = dense_lambda(rows, theta), dense_z(rows)
    zl = z @ lam
    m = zl.T @ (rows.w[:, None] * zl) + np.eye(zl.shape[1])
    return lam, m, zl.T @ (rows.w[:, None] * rows.x), rows.x.T @ (rows.w[:, None] * rows.x)


def right_hand_side(rows: Rows):
    rng = np.random.default_rng(7)
    return tuple(rng.normal(size=(q, k)) for q, k, _ in rows.shape.terms), rng.normal(size=rows.x.shape[1])


def flat(terms) -> np.ndarray:
    return np.concatenate([np.ravel(t) for t in terms])


@pytest.mark.parametrize("shape", GENERAL.values(), ids=GENERAL)
def test_with_fixed_effects(shape):
    rows = Rows.draw(shape, 4)
    theta = theta_of(rows)
    lam, m, zx, xx = system(rows, theta)
    rhs, rhs_x = right_hand_side(rows)
    kept = [r.copy() for r in rhs]
    found, tau = solve_for(factor_of(rows, theta), rhs, rhs_x)
    expected = np.linalg.solve(np.block([[m, zx], [zx.T, xx]]), np.concatenate([lam.T @ flat(rhs), rhs_x]))
    p = len(rhs_x)
    assert tau == pytest.approx(expected[-p:], rel=1e-8, abs=1e-9)
    assert flat(found) == pytest.approx(lam @ expected[:-p], rel=1e-8, abs=1e-9)
    assert all(np.array_equal(a, b) for a, b in zip(rhs, kept, strict=True))


@pytest.mark.parametrize("shape", GENERAL.values(), ids=GENERAL)
def test_random_effects_only(shape):
    rows = Rows.draw(shape, 5)
    theta = theta_of(rows)
    lam, m, _, _ = system(rows, theta)
    rhs, rhs_x = right_hand_side(rows)
    found, tau = solve_for(factor_of(rows, theta), rhs, rhs_x, random_only=True)
    assert np.all(tau == 0.0)
    assert flat(found) == pytest.approx(lam @ np.linalg.solve(m, lam.T @ flat(rhs)), rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("shape", GENERAL.values(), ids=GENERAL)
def test_without_variance_nothing_moves(shape):
    rows = Rows.draw(shape, 6)
    rhs, rhs_x = right_hand_side(rows)
    found, tau = solve_for(factor_of(rows, np.zeros(rows.covariances.n_theta)), rhs, rhs_x)
    assert np.all(flat(found) == 0.0)
    assert tau == pytest.approx(np.linalg.solve(rows.x.T @ (rows.w[:, None] * rows.x), rhs_x), rel=1e-9)
