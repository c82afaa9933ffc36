"""theta <-> the lower-triangular templates lambda_j (docs/notation.md), in lme4's order.

User terms that share a grouping factor are joined for the algebra: their templates are placed side by side in one (k,
k) matrix. A theta element is then one entry (row, column) of one joint matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bigmm.blocks.gram import Gram
from bigmm.design.layout import Layout
from bigmm.errors import FormulaError


@dataclass(frozen=True, slots=True)
class Template:
    """One user term: its joint term, the places (k,) of its covariates there, its names, and where its theta begin.

    square: theta is every element of the template, not only the lower triangle."""

    group: str
    names: tuple[str, ...]
    joint: int
    slots: tuple[int, ...]
    start: int
    square: bool = False

    @property
    def width(self) -> int:
        return len(self.slots)

    @property
    def size(self) -> int:
        return self.width**2 if self.square else self.width * (self.width + 1) // 2

    def entries(self) -> list[tuple[int, int]]:
        """(row, column) of each theta element in the term's own template, column by column."""
        first = [0 if self.square else column for column in range(self.width)]
        return [(row, column) for column in range(self.width) for row in range(first[column], self.width)]


@dataclass(frozen=True, slots=True)
class Templates:
    """All terms of a model, in lme4's order of theta; widths (n_joint,) are the joint terms' widths."""

    terms: tuple[Template, ...]
    widths: tuple[int, ...]

    @property
    def n_theta(self) -> int:
        return sum(term.size for term in self.terms)

    @property
    def names(self) -> tuple[str, ...]:
        """lme4's theta names: "g.(covariate)" on the diagonal, "g.row.column" below it."""
        out = []
        for term in self.terms:
            for row, column in term.entries():
                parts = [term.names[column]] if row == column else [term.names[row], term.names[column]]
                out.append(".".join([term.group, *parts]))
        return tuple(out)

    @property
    def lower(self) -> np.ndarray:
        """(n_theta,) 0 for diagonal elements, -inf below the diagonal."""
        return np.array([0.0 if r == c else -np.inf for term in self.terms for r, c in term.entries()])

    def square(self) -> Templates:
        """The same terms with theta = every element of each template: any square root of a covariance."""
        starts = np.cumsum([0, *(term.width**2 for term in self.terms)])
        terms = (replace(term, start=int(at), square=True) for term, at in zip(self.terms, starts, strict=False))
        return Templates(tuple(terms), self.widths)

    def elements(self, matrices: Sequence[np.ndarray]) -> np.ndarray:
        """(n_theta,) theta of the templates (k, k) of the user terms."""
        pairs = zip(self.terms, matrices, strict=True)
        return np.array([matrix[r, c] for term, matrix in pairs for r, c in term.entries()])

    def places(self) -> list[tuple[int, int, int]]:
        """(joint term, row, column) in the joint matrix of each theta element."""
        return [(t.joint, t.slots[r], t.slots[c]) for t in self.terms for r, c in t.entries()]

    def lambdas(self, theta: np.ndarray) -> tuple[np.ndarray, ...]:
        """Per user term the (k, k) lower-triangular template."""
        out = []
        for term in self.terms:
            lam = np.zeros((term.width, term.width))
            for value, (row, column) in zip(theta[term.start : term.start + term.size], term.entries(), strict=True):
                lam[row, column] = value
            out.append(lam)
        return tuple(out)

    def joint(self, theta: np.ndarray) -> tuple[np.ndarray, ...]:
        """Per joint term the (k, k) matrix that holds the templates of its members."""
        out = [np.zeros((k, k)) for k in self.widths]
        for term, lam in zip(self.terms, self.lambdas(theta), strict=True):
            out[term.joint][np.ix_(term.slots, term.slots)] += lam
        return tuple(out)

    def rectified(self, theta: np.ndarray) -> np.ndarray:
        """The same covariance with non-negative template diagonals: flips the sign of whole columns."""
        out = np.array(theta, float)
        for term in self.terms:
            at = term.start
            for column in range(term.width):
                size = term.width - column
                if out[at] < 0:
                    out[at : at + size] *= -1
                at += size
        return out + 0.0

    def working(self, gram: Gram, theta: np.ndarray) -> tuple[np.ndarray, ...]:
        """Per term of the Gram matrix Lambda's block in the working basis, T lambda (identity for unpenalized
        terms)."""
        joint = self.joint(theta)
        return tuple(
            term.basis @ joint[number] if term.penalized else np.eye(term.width)
            for number, term in enumerate(gram.terms)
        )


def templates_for(layout: Layout, order: tuple[int, ...]) -> Templates:
    """Templates of a layout's random terms; ``order`` lists `layout.joint` indices as they stand in the Gram
    matrix.

    Raises FormulaError when one covariate appears twice for the same grouping factor (its variance is not identified).
    """
    joined = layout.joint
    place = {
        member: (position, slots)
        for position, number in enumerate(order)
        for member, slots in zip(joined[number].members, joined[number].slots, strict=True)
    }
    terms, start = [], 0
    for number, term in enumerate(layout.terms):
        joint, slots = place[number]
        terms.append(Template(term.group, term.names, joint, slots, start))
        start += terms[-1].size
    for number in order:
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
    return Templates(tuple(terms), widths)


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
        rest = np.array(root[i], float)
        for _ in range(2):  # once more: what rounding left of earlier rows
            along = rows[:i] @ rest
            lower[i, :i] += along
            rest -= along @ rows[:i]
        size = float(np.linalg.norm(rest))
        if size > nothing * np.linalg.norm(root[i]):
            lower[i, i], rows[i] = size, rest / size
    return lower
