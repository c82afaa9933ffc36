"""Random vectors for traces and log-determinants, and the subspace that is taken out of them.

    tr f = sum over a fixed deflation basis Q of q'f q + mean over probes z of (z - QQ'z)'f (z - QQ'z)

as in Hutch++ (Meyer, Musco, Musco and Woodruff 2021). Both are fixed by a seed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bigmm.blocks.iterative.krylov import TailOperator, padded
from bigmm.blocks.structure import Structure

Keys = tuple[tuple[str, int, int], ...]
"""Per tail term (name, levels, width), in the order of the tail's columns."""


def keys_of(structure: Structure) -> Keys:
    """What random columns are keyed by: the names and sizes of the tail's terms."""
    terms = structure.gram.terms
    return tuple((terms[t.term].name, t.n_levels, t.width) for t in structure.tail)


@dataclass(frozen=True, slots=True)
class Probes:
    """basis (r, d) orthonormal columns Q; vectors (r, t) random signs with their part in Q removed."""

    basis: np.ndarray
    vectors: np.ndarray


def make_probes(factor_basis: np.ndarray, r: int, n_probes: int, seed: int, keys: Keys | None = None) -> Probes:
    """Random signs with their part in the basis removed; see `keyed_columns` for what they depend on."""
    # The basis is traced exactly; probes that kept their part in it would count it twice.
    signs = keyed_columns(_signs, r, n_probes, seed, keys)
    return Probes(factor_basis, np.ascontiguousarray(signs - factor_basis @ (factor_basis.T @ signs)))


def draw_probes(operator: TailOperator, n_probes: int, deflation: int, seed: int) -> Probes:
    """A basis and probes made at this operator; a function of it and the seed."""
    keys = keys_of(operator.structure)
    basis = deflation_basis(operator, deflation, seed, keys=keys)
    return make_probes(basis, operator.size, n_probes, seed, keys)


def standard_error(index: np.ndarray) -> float:
    """The standard error of the mean of the probes' values (t,)."""
    return float(index.std(ddof=1) / np.sqrt(len(index)))


def sum_and_spread(fixed: np.ndarray, index: np.ndarray, n_probes: int) -> tuple[np.ndarray, np.ndarray]:
    """((k, k) estimate of a symmetric sum over levels, (t, k, k) the estimates of single probes).

    fixed (k, k) is the exact part, and index (t + d, k, k) what probes, then the columns of the basis, add to it.
    """
    index = 0.5 * (index + index.transpose(0, 2, 1))
    deflated = fixed + index[n_probes:].sum(axis=0)
    return deflated + index[:n_probes].mean(axis=0), deflated + index[:n_probes]


def most_deflation(operator: TailOperator) -> int:
    """Columns that a basis may have: with many of few, solving for them costs more than the probes it saves."""
    return operator.size // 4


def deflation_basis(
    operator: TailOperator, size: int, seed: int, rounds: int = 6, keys: Keys | None = None
) -> np.ndarray:
    """(r, size) orthonormal columns: coordinates of terms of few columns (see `_few_columns`), then columns near the
    largest |eigenvalues| of what they leave of X_hat = I - S_hat, by subspace iteration."""
    size = min(size, most_deflation(operator))
    few = _few_columns(operator.structure, 2 * size // 3)
    target = size - len(few)
    basis = _orthonormal_without(few, keyed_columns(_normals, operator.size, target, seed + 1, keys))
    for _ in range(rounds if target else 0):
        # A step of the power method on I - S_hat. float32 is enough: a basis need only be near the eigenvectors.
        image = operator.apply(padded(basis.astype(np.float32)))
        basis = _orthonormal_without(few, basis - image[:, :target])
    coordinates = np.zeros((operator.size, len(few)))
    coordinates[few, np.arange(len(few))] = 1.0
    return np.concatenate([coordinates, basis], axis=1)


def _few_columns(structure: Structure, most: int) -> np.ndarray:
    """(c,) columns of the tail, c <= most, of its smallest terms: what they have to do with all others is then traced
    exactly. A random sign for each would leave an error that does not fall with their variance, so that it could not be
    told whether that is zero."""
    chosen: list[np.ndarray] = []
    for t in sorted(structure.tail, key=lambda t: t.n_levels * t.width):
        most -= t.n_levels * t.width
        if most < 0:
            break
        chosen.append(np.arange(t.offset, t.stop))
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, int)


def _orthonormal_without(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of columns whose given rows are set to zero."""
    columns[rows] = 0.0
    return np.linalg.qr(columns)[0]


def keyed_columns(
    draw: Callable[[np.random.Generator, int], np.ndarray], r: int, size: int, seed: int, keys: Keys | None
) -> np.ndarray:
    """(r, size) random numbers, a stream of their own per column, term and covariate, keyed by seed, name and levels.

    So two models that share a term share its numbers (common probes make the difference of their log-determinants
    precise), and with more columns the first ones stay the same.
    """
    out = np.empty((r, size))
    offset = 0
    for name, levels, width in keys or (("", r, 1),):
        part = out[offset : offset + levels * width].reshape(levels, width, size)
        for covariate in range(width):
            for number in range(size):
                # Python's own hash of a string differs from process to process.
                entropy = [seed, zlib.crc32(name.encode()), levels, covariate, number]
                part[:, covariate, number] = draw(np.random.default_rng(entropy), levels)
        offset += levels * width
    return out


def _signs(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 2, size=n, dtype=np.int8) * 2.0 - 1.0


def _normals(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_normal(n)
