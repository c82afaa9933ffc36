"""The covariance of all random effects: theta and the relative factors lambda of the terms, in lme4's order.

The algebra joins user terms that share a grouping factor. Their lambdas stand side by side in one (k, k) matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bigmm.blocks.gram import Gram
from bigmm.covariance import Covariance, covariance
from bigmm.design.layout import Layout
from bigmm.errors import FormulaError

Matrices = tuple[np.ndarray, ...]


@dataclass(frozen=True, slots=True)
class TermCovariance:
    """One user term.

    Attributes
    ----------
    group : the label of the term's grouping factor.
    names : (k,) names of its columns.
    joint : number of its joint term.
    slots : (k,) positions of its columns in the joint term.
    start : position of its first parameter in theta.
    structure : name of its covariance structure.
    """

    group: str
    names: tuple[str, ...]
    joint: int
    slots: tuple[int, ...]
    start: int
    structure: str = "us"

    @property
    def width(self) -> int:
        """The number k of columns."""
        return len(self.slots)

    @property
    def covariance(self) -> Covariance:
        """The structure over the columns."""
        return covariance(self.structure, self.width)

    @property
    def size(self) -> int:
        """The number of parameters."""
        return self.covariance.n_parameters

    @property
    def part(self) -> slice:
        """Where the parameters stand in theta."""
        return slice(self.start, self.start + self.size)

    @property
    def block(self) -> tuple[np.ndarray, ...]:
        """Where lambda stands in the matrix of the joint term."""
        return np.ix_(self.slots, self.slots)


@dataclass(frozen=True, slots=True)
class RootElements:
    """Elements of the joint terms' matrices that an engine of a generalized model has for parameters.

    Attributes
    ----------
    elements : (n,) tuples of joint term, row, column.
    widths : (n_joint,) widths of the joint terms.
    """

    elements: tuple[tuple[int, int, int], ...]
    widths: tuple[int, ...]

    @property
    def n_theta(self) -> int:
        """The number of elements."""
        return len(self.elements)

    def joint(self, values: np.ndarray) -> Matrices:
        """Per joint term the (k, k) matrix of these elements."""
        out = tuple(np.zeros((k, k)) for k in self.widths)
        for value, (joint, row, column) in zip(values, self.elements, strict=True):
            out[joint][row, column] = value
        return out

    def values(self, matrices: Sequence[np.ndarray]) -> np.ndarray:
        """(n,) elements of matrices (k, k) of the joint terms."""
        return np.array([matrices[joint][row, column] for joint, row, column in self.elements])


@dataclass(frozen=True, slots=True)
class ModelCovariance:
    """All terms of a model, in lme4's order of theta; widths (n_joint,) are the joint terms' widths."""

    terms: tuple[TermCovariance, ...]
    widths: tuple[int, ...]

    @property
    def n_theta(self) -> int:
        """The number of parameters."""
        return sum(term.size for term in self.terms)

    @property
    def names(self) -> tuple[str, ...]:
        """(n_theta,) names of the parameters."""
        return tuple(name for term in self.terms for name in term.covariance.names(term.group, term.names))

    def _each(self, values: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(values) if values else np.zeros(0)

    @property
    def lower(self) -> np.ndarray:
        """(n_theta,) lower bounds: 0 for scales."""
        return self._each([term.covariance.lower for term in self.terms])

    @property
    def upper(self) -> np.ndarray:
        """(n_theta,) upper bounds."""
        return self._each([term.covariance.upper for term in self.terms])

    @property
    def search_lower(self) -> np.ndarray:
        """(n_theta,) see `Covariance.search_lower`."""
        return self._each([term.covariance.search_lower for term in self.terms])

    def rectified(self, point: np.ndarray) -> np.ndarray:
        """The same model with scales that are not negative, as search points."""
        point = np.asarray(point, float)
        # Adding 0.0 makes 0.0 of -0.0, which prints as a sign that means nothing.
        return self._each([term.covariance.canonical(point[term.part]) for term in self.terms]) + 0.0

    def scaled(self, theta: np.ndarray, factor: float) -> np.ndarray:
        """(n_theta,) theta of factor times lambda."""
        return self._each([term.covariance.scaled(theta[term.part], factor) for term in self.terms])

    def lambdas(self, theta: np.ndarray) -> Matrices:
        """Per user term the (k, k) lower triangular lambda."""
        return tuple(term.covariance.lam(theta[term.part]) for term in self.terms)

    def side_by_side(self, matrices: Sequence[np.ndarray]) -> Matrices:
        """Per joint term the (k, k) matrix that holds those of the user terms."""
        out = tuple(np.zeros((k, k)) for k in self.widths)
        for term, matrix in zip(self.terms, matrices, strict=True):
            out[term.joint][term.block] += matrix
        return out

    def joint(self, theta: np.ndarray) -> Matrices:
        """Per joint term the (k, k) matrix that holds the lambdas of its members."""
        return self.side_by_side(self.lambdas(theta))

    def working(self, gram: Gram, theta: np.ndarray) -> Matrices:
        """Per term of the Gram matrix Lambda's block in the working basis, T lambda (identity for unpenalized
        terms)."""
        joint = self.joint(theta)
        return tuple(
            term.basis @ joint[number] if term.penalized else np.eye(term.width)
            for number, term in enumerate(gram.terms)
        )

    def directions(self, theta: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Per parameter (joint term, (k, k) derivative of its matrix)."""
        for term in self.terms:
            for change in term.covariance.directions(theta[term.part]):
                direction = np.zeros((self.widths[term.joint],) * 2)
                direction[term.block] = change
                yield term.joint, direction

    def pullback(self, theta: np.ndarray, djoint: Sequence[np.ndarray]) -> np.ndarray:
        """(n_theta,) gradient from gradients (k, k) with respect to the joint terms' matrices."""
        return self._each(
            [t.covariance.pullback(theta[t.part], djoint[t.joint][t.block]) for t in self.terms],
        )

    def second_order(self, theta: np.ndarray, dcov: Sequence[np.ndarray], djoint: Sequence[np.ndarray]) -> np.ndarray:
        """(n_theta, n_theta) see `Covariance.second_order`; dcov, djoint (k, k) of the joint terms."""
        out = np.zeros((self.n_theta, self.n_theta))
        for t in self.terms:
            # Terms share no parameter, so what couples two terms is zero.
            g, slope = dcov[t.joint][t.block], djoint[t.joint][t.block]
            out[t.part, t.part] = t.covariance.second_order(theta[t.part], g, slope)
        return out

    @property
    def root_elements(self) -> RootElements:
        """The lower triangles of the terms' lambdas."""
        # The upper triangle row by row is, with rows and columns exchanged, the lower one column by column: lme4's
        # order.
        every = [(t, *pair) for t in self.terms for pair in zip(*np.triu_indices(t.width), strict=True)]
        return RootElements(tuple((t.joint, t.slots[r], t.slots[c]) for t, c, r in every), self.widths)


def covariances_for(layout: Layout, order: tuple[int, ...]) -> ModelCovariance:
    """Covariance of a layout's random terms; ``order`` lists `layout.joint` indices as they stand in the Gram
    matrix.

    Raises FormulaError when one covariate appears twice for the same grouping factor (its variance is not identified).
    """
    joined = layout.joint
    positions = {
        member: (position, slots)
        for position, number in enumerate(order)
        for member, slots in zip(joined[number].members, joined[number].slots, strict=True)
    }
    terms, start = [], 0
    for number, term in enumerate(layout.terms):
        terms.append(TermCovariance(term.group, term.names, *positions[number], start, term.structure))
        start += terms[-1].size
    for number in order:
        # (1 | g) + (x | g) has two intercepts in one column of the joint term.
        used = [slot for slots in joined[number].slots for slot in slots]
        if len(set(used)) < len(used):
            column = next(slot for slot in used if used.count(slot) > 1)
            group = joined[number].name
            name = layout.columns[joined[number].covariates[column]]
            raise FormulaError(
                f"the random effect of {'the intercept' if name == '1' else repr(name)} appears twice for grouping "
                f"factor {group!r}: the two variances cannot be told apart; keep one of the terms"
            )
    widths = tuple(joined[number].width for number in order if joined[number].fixed_factor is None)
    return ModelCovariance(tuple(terms), widths)


def lower_factor(root: np.ndarray, nothing: float = 1e-14) -> np.ndarray:
    """(k, k) lower triangular L with L L' = root root' and a non-negative diagonal, root (k, m).

    By orthogonal rows, so that no digits are lost to squares; a row that is a combination of earlier ones, but for a
    share of `nothing` of its size, gets a diagonal of 0, and then nothing stands below.
    """
    k, diagonal = len(root), np.diagonal(root)
    clear = (diagonal == 0.0) | (diagonal > nothing * np.linalg.norm(root, axis=1)[: len(diagonal)])
    if root.shape[1] == k and not np.triu(root, 1).any() and clear.all():
        return np.array(root, float)  # to the last bit
    lower, rows = np.zeros((k, k)), np.zeros((k, root.shape[1]))
    for i in range(k):
        remainder = np.array(root[i], float)
        for _ in range(2):  # once more: what rounding left of earlier rows
            along = rows[:i] @ remainder
            lower[i, :i] += along
            remainder -= along @ rows[:i]
        size = float(np.linalg.norm(remainder))
        if size > nothing * np.linalg.norm(root[i]):
            lower[i, i], rows[i] = size, remainder / size
    return lower
