"""The inverse between levels that meet in some row, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest

from bigmm.blocks.exact.inverse import selected_inverse
from tests.blocks.models import GENERAL, dense_lambda, dense_z, factor_of, starts, theta_of
from tests.oracle import Rows


def dense_covariance(rows: Rows, theta: np.ndarray) -> np.ndarray:
    """Lambda M^-1 Lambda'."""
    lam, z = dense_lambda(rows, theta), dense_z(rows)
    zl = z @ lam
    return lam @ np.linalg.solve(zl.T @ (rows.w[:, None] * zl) + np.eye(zl.shape[1]), lam.T)


@pytest.mark.parametrize("shape", GENERAL.values(), ids=GENERAL)
@pytest.mark.parametrize("singular", [False, True])
def test_pairs(shape, singular):
    rows = Rows.draw(shape, 8)
    theta = theta_of(rows)
    if singular:
        theta[0] = 0.0
    expected, at = dense_covariance(rows, theta), starts(rows)
    gram = rows.gram
    found = selected_inverse(factor_of(rows, theta), with_fixed=False, pattern=True)
    assert found.pairs.keys() == gram.cross.keys()
    for (j, k), block in gram.cross.items():
        wide_j, wide_k = gram.terms[j].width, gram.terms[k].width
        levels = np.repeat(np.arange(gram.terms[j].n_levels), np.diff(block.indptr))
        assert found.pairs[j, k].shape == (len(levels), wide_j, wide_k)
        for e, (a, b) in enumerate(zip(levels, block.indices, strict=True)):
            i, c = at[j] + a * wide_j, at[k] + b * wide_k
            assert found.pairs[j, k][e] == pytest.approx(expected[i : i + wide_j, c : c + wide_k], rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("shape", GENERAL.values(), ids=GENERAL)
def test_own_levels(shape):
    rows = Rows.draw(shape, 9)
    theta = theta_of(rows)
    expected, at = dense_covariance(rows, theta), starts(rows)
    found = selected_inverse(factor_of(rows, theta), with_fixed=False, pattern=True)
    for j, (q, k, _) in enumerate(rows.shape.terms):
        for level in range(q):
            i = at[j] + level * k
            assert found.covariances[j][level] == pytest.approx(expected[i : i + k, i : i + k], rel=1e-8, abs=1e-10)


def test_one_term_has_no_pairs():
    rows = Rows.draw(GENERAL["one slope"], 1)
    assert selected_inverse(factor_of(rows, theta_of(rows)), with_fixed=False, pattern=True).pairs == {}


@pytest.mark.parametrize("shape", GENERAL.values(), ids=GENERAL)
def test_leverages_of_rows_need_no_other_pairs(shape):
    """z_i'Lambda M^-1 Lambda'z_i from the pattern alone: what the gradient of log|M| is made of."""
    rows = Rows.draw(shape, 10)
    theta = theta_of(rows)
    z, gram = dense_z(rows), rows.gram
    expected = np.einsum("ni,ij,nj->n", z, dense_covariance(rows, theta), z)
    found = selected_inverse(factor_of(rows, theta), with_fixed=False, pattern=True)
    total = sum(
        np.einsum("na,nab,nb->n", rows.z[j], found.covariances[j][r], rows.z[j]) for j, r in enumerate(rows.refs)
    )
    for (j, k), block in gram.cross.items():
        owner = np.repeat(np.arange(gram.terms[j].n_levels), np.diff(block.indptr))
        entry = {(a, b): e for e, (a, b) in enumerate(zip(owner, block.indices, strict=True))}
        places = [entry[pair] for pair in zip(rows.refs[j], rows.refs[k], strict=True)]
        total = total + 2.0 * np.einsum("na,nab,nb->n", rows.z[j], found.pairs[j, k][places], rows.z[k])
    assert total == pytest.approx(expected, rel=1e-8, abs=1e-10)
