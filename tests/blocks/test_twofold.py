"""Twofold products against rational arithmetic: about 32 digits, where float64 has 16."""

from fractions import Fraction

import numpy as np
import pytest

from bigmm.blocks.exact.twofold_kernels import subtract_blocks, subtract_products


def exact(twofold: np.ndarray) -> np.ndarray:
    """(2, ...) as fractions."""
    rational = np.vectorize(Fraction, otypes=[object])
    return rational(twofold[0]) + rational(twofold[1])


def drawn(rng, *shape: int) -> np.ndarray:
    high = rng.normal(size=shape) * 10.0 ** rng.uniform(-8, 8, shape)
    return np.stack([high, high * rng.uniform(-1e-17, 1e-17, shape)])


@pytest.mark.parametrize("seed", range(3))
def test_blocks_are_subtracted_to_thirty_digits(seed):
    rng = np.random.default_rng(seed)
    indptr, indices, data = np.array([0, 2, 2, 4]), np.array([0, 1, 1, 3]), rng.normal(size=(4, 2, 3))
    source, target = drawn(rng, 4, 3, 2), drawn(rng, 3, 2, 2)
    expected, size = exact(target), np.abs(exact(target))
    for i in range(3):
        for e in range(indptr[i], indptr[i + 1]):
            product = np.vectorize(Fraction, otypes=[object])(data[e]) @ exact(source)[indices[e]]
            expected[i] -= product
            size[i] += np.abs(data[e]).astype(object) @ np.abs(source[0][indices[e]])
    subtract_blocks(indptr, indices, data, source, target)
    assert max((abs(exact(target) - expected) / size).ravel()) < 1e-30
    np.testing.assert_array_equal(target[0], expected.astype(float))


def test_products_are_subtracted_to_thirty_digits():
    rng = np.random.default_rng(4)
    left, right, total = rng.normal(size=(5, 2, 3)), drawn(rng, 5, 2, 3), drawn(rng, 3, 3)
    rational = np.vectorize(Fraction, otypes=[object])
    expected = exact(total)
    size = np.abs(expected)
    for one, other in zip(rational(left), exact(right).reshape(5, 2, 3)):
        expected = expected - one.T @ other
        size = size + np.abs(one.T) @ np.abs(other)
    subtract_products(left, right, total)
    assert max((abs(exact(total) - expected) / size).ravel()) < 1e-30


def test_what_cancels_keeps_its_digits():
    # (1 + 2^-40)^2 - 1 - 2^-39 = 2^-80, of which float64 has nothing
    value = 1.0 + 2.0**-40
    target = np.array([1.0 + 2.0**-39, 0.0]).reshape(2, 1, 1, 1)
    source = np.array([value, 0.0]).reshape(2, 1, 1, 1)
    subtract_blocks(np.array([0, 1]), np.array([0]), np.full((1, 1, 1), value), source, target)
    assert exact(target).item() == Fraction(-1, 2**80)
