"""A starting value of theta from moments of the blocks (Henderson's method 1; Gao and Owen 2017), at no pass.

Every covariate of every term gets the equation E[sum_l s_l^2 / B_l] = sum over covariates of variance * weight, with
s = Z'W(y - X beta_OLS) and B the diagonal of Z'WZ, and the residual sum of squares closes the system.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from bigmm.blocks.gram import Gram, TermBlock
from bigmm.objective.covariances import ModelCovariance, TermCovariance, lower_factor

SMALLEST_SHARE = 0.05
"""A start is never at the boundary: theta^2 times the mean information of a level is at least this."""
MOST_EFFECT = 3.0
"""Standard deviation of effects over that of the residual, above which no start is made for structures that have to be
told apart from the residual."""
CONSTANT = 1e-28
"""Share of a column's sum of squares below which its variation is rounding."""


@dataclass(frozen=True, slots=True)
class MomentSums:
    """Sums over levels, additive over shards, for the s covariates of all penalized terms.

    Attributes
    ----------
    moment : (s,) sum of s_l^2 / B_l.
    coupling : (s, s) see `_coupling`.
    informative : (s,) number of levels with B > 0.
    levels : (s,) number of levels.
    products : (s, s) sum of Z'WZ within each term, 0 between terms.
    """

    moment: np.ndarray
    coupling: np.ndarray
    informative: np.ndarray
    levels: np.ndarray
    products: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """(s,) sum of B."""
        return np.diagonal(self.products)

    def merge(self, other: MomentSums) -> MomentSums:
        """Of the levels of both."""
        return MomentSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def moment_start(gram: Gram, covariances: ModelCovariance) -> np.ndarray:
    """(n_theta,) start: variances from moments, no correlation in the working basis."""
    return start_from(moment_sums(gram, fixed_coefficients(gram)), gram, covariances)


def fixed_coefficients(gram: Gram) -> np.ndarray:
    """(p,) least squares without random effects, working basis."""
    return np.asarray(np.linalg.lstsq(gram.xy[:-1, :-1], gram.xy[:-1, -1], rcond=None)[0])


def start_from(sums: MomentSums, gram: Gram, covariances: ModelCovariance) -> np.ndarray:
    """`moment_start` from the sums; of gram only the fixed part is used."""
    ratios = _variance_ratios(sums, gram)
    theta = np.zeros(covariances.n_theta)
    for term in covariances.terms:
        block = np.diag(ratios[term.joint])
        if term.width == len(block):  # a full covariance: the working basis is as good as the user's
            lam = lower_factor(np.linalg.solve(gram.terms[term.joint].basis, block)[list(term.slots)])
        else:
            lam = block[term.block]
        if term.covariance.parts_from_residual:  # where a level has one row of a column, moments cannot
            lam = lam * min(1.0, MOST_EFFECT / max(_effects(sums, gram, term, lam), 1e-300))
        theta[term.part] = term.covariance.start(lam)
    return theta


def _effects(sums: MomentSums, gram: Gram, term: TermCovariance, lam: np.ndarray) -> float:
    """Largest standard deviation that a column's effects give to its rows, over that of the residual, if a row has one
    column of the term."""
    widths = [t.width for t in gram.terms if t.penalized]
    block = slice(sum(widths[: term.joint]), sum(widths[: term.joint + 1]))
    columns = gram.terms[term.joint].basis[:, term.slots]
    squares = np.einsum("ac,ab,bc->c", columns, sums.products[block, block], columns)
    sizes = np.sqrt(np.maximum(squares, 0.0) * term.width / gram.n)
    return float(np.max(np.linalg.norm(lam, axis=1) * sizes))


def level_squares(gram: Gram) -> tuple[np.ndarray, ...]:
    """Per penalized term (k, k) Z'WZ of an average level, working basis."""
    out = []
    for term in gram.terms:
        if term.penalized:
            levels = term.n_levels if term.multiplicity is None else term.multiplicity.sum()
            out.append(summed_diagonal(term) / levels)
    return tuple(out)


def summed_diagonal(term: TermBlock) -> np.ndarray:
    """(k, k) Z'WZ summed over levels."""
    return np.tensordot(np.ones(term.n_levels) if term.multiplicity is None else term.multiplicity, term.diagonal, 1)


def moment_sums(gram: Gram, coefficients: np.ndarray) -> MomentSums:
    """Of the levels of gram, about the given fixed effects (p,)."""
    terms = [t for t in gram.terms if t.penalized]
    owners = [(j, c) for j, t in enumerate(terms) for c in range(t.width)]
    n = len(owners)
    moment, coupling, informative, levels, products = (
        np.zeros(n),
        np.zeros((n, n)),
        np.zeros(n),
        np.zeros(n),
        np.zeros((n, n)),
    )
    for i, (j, c) in enumerate(owners):
        t = terms[j]
        b = t.diagonal[:, c, c]
        # A level without information has no equation.
        inverse = np.divide(1.0, b, out=np.zeros_like(b), where=b > 0)
        s = t.dense[:, c, -1] - t.dense[:, c, :-1] @ coefficients
        moment[i] = (s * s) @ inverse
        informative[i], levels[i] = np.count_nonzero(b > 0), len(b)
        for i2, (j2, c2) in enumerate(owners):
            coupling[i, i2] = _coupling(gram, j, c, j2, c2, inverse)
            if j == j2:
                products[i, i2] = t.diagonal[:, c, c2].sum()
    return MomentSums(moment, coupling, informative, levels, products)


def _variance_ratios(sums: MomentSums, gram: Gram) -> list[np.ndarray]:
    """Per penalized term (k,): sqrt(variance of the covariate's effect / residual variance)."""
    terms = [t for t in gram.terms if t.penalized]
    owners = [(j, c) for j, t in enumerate(terms) for c in range(t.width)]
    coefficients = fixed_coefficients(gram)
    rss = gram.xy[-1, -1] - coefficients @ gram.xy[:-1, -1]
    n = len(owners)
    degrees = max(gram.n - len(coefficients), 1)
    matrix = np.block([[sums.coupling, sums.informative[:, None]], [sums.total[None, :], np.full((1, 1), degrees)]])
    sizes = _sizes(sums, terms) / np.maximum(sums.levels, 1)
    units = np.append(np.where(sizes > 0, sizes, 1.0), 1.0)  # covariates may be of any size
    # Least squares: a covariate without variation makes the equations singular.
    variances = np.linalg.lstsq(matrix / units, np.append(sums.moment, rss), rcond=None)[0] / units
    residual = variances[n] if variances[n] > 0 else rss / degrees
    out = [np.zeros(t.width) for t in terms]
    for i, (j, c) in enumerate(owners):
        floor = SMALLEST_SHARE / max(sizes[i], 1e-300)
        ratio = variances[i] / residual if residual > 0 else 1.0
        # Bounded above too: moments of data with hardly any residual give a ratio of almost infinity.
        out[j][c] = np.sqrt(min(max(ratio, floor), 1e8 * floor))
    return out


def _sizes(sums: MomentSums, terms: list[TermBlock]) -> np.ndarray:
    """(s,) sums of squares; a column that is constant, and so nothing but rounding once it is shifted, has its own."""
    out, start = [], 0
    for term in terms:
        block = sums.products[start : start + term.width, start : start + term.width]
        original = np.diagonal(term.basis.T @ block @ term.basis)
        shifted = np.diagonal(block)
        out.append(np.where(shifted > CONSTANT * original, shifted, original))
        start += term.width
    return np.concatenate(out)


def _coupling(gram: Gram, j: int, c: int, j2: int, c2: int, inverse: np.ndarray) -> float:
    """sum over pairs of levels of (Z_c'W Z_c2)^2 / B_c."""
    if j == j2:
        return float((gram.terms[j].diagonal[:, c, c2] ** 2) @ inverse)
    if (j, j2) in gram.cross:
        block = gram.cross[j, j2]
        row = np.repeat(inverse, np.diff(block.indptr))
        return float((block.data[:, c, c2] ** 2) @ row)
    # A pair of terms is stored one way round only.
    block = gram.cross[j2, j]
    return float((block.data[:, c2, c] ** 2) @ inverse[block.indices])
