"""The answers that are the same for every solver whose levels are all on the driver, and for every exact solver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bigmm.blocks.compress import compress
from bigmm.blocks.exact.solve import Solution, multiply, residual_products, tall_product
from bigmm.blocks.gram import Gram
from bigmm.blocks.structure import Structure
from bigmm.objective.covariances import ModelCovariance
from bigmm.objective.factorization import Lams, LevelMoments, Modes, Terms, Variances
from bigmm.objective.information import Changes, average_information
from bigmm.objective.refinement import Refined
from bigmm.objective.start import level_squares, moment_start


class ExactFactor:
    """The part of a `Factorization` that follows from exact blocks of the inverse; gram: for the bases of its terms."""

    gram: Gram
    logdet_error = 0.0
    logdet_each = np.zeros(0)  # one array for all instances: an empty one has nothing to write to

    def covariances(self) -> tuple[np.ndarray | None, ...]:
        """Per term (q, k, k) Lambda (M^-1)_ll Lambda', working basis; None for unpenalized terms."""
        raise NotImplementedError

    def spread(self, with_fixed: bool) -> Sequence[tuple[np.ndarray, ...]]:
        """See `Factorization.spread`."""
        return ()

    def row_estimator(self, rows: int | None) -> None:
        """Every row is solved for."""

    def refined(self) -> Refined | None:
        """See `Factorization.refined`."""
        return None

    def conditional_covariances(self, scale: float) -> tuple[np.ndarray, ...]:
        """Per penalized term (q, k, k) scale times the covariance of a level's effects, original basis."""
        out = []
        for term, block in zip(self.gram.terms, self.covariances(), strict=True):
            if term.penalized and block is not None:
                # Effects of the working basis are T b.
                back = np.linalg.inv(term.basis)
                out.append(scale * back @ block @ back.T)
        return tuple(out)

    def level_variances(self, scale: float) -> tuple[Variances, ...]:
        """See `Factorization.level_variances`."""
        blocks = self.conditional_covariances(scale)
        # Copies: a view of the diagonals would keep the whole blocks alive.
        return tuple(Variances(np.array(np.diagonal(block, axis1=1, axis2=2)), None) for block in blocks)

    def selected_variances(self, scale: float, term: int, levels: Any) -> np.ndarray:
        """See `Factorization.selected_variances`."""
        block = self.conditional_covariances(scale)[term]
        return np.diagonal(block if levels is None else block[levels], axis1=1, axis2=2)


class DriverFactor:
    """The part of a `Factorization` that needs the rows of A of every level."""

    structure: Structure

    def quadratic(self, rhs: Terms, rhs_x: np.ndarray) -> np.ndarray:
        """See `WorkingFactorization.quadratic`."""
        raise NotImplementedError

    def projected(self, with_fixed: bool) -> tuple[np.ndarray | None, ...]:
        """See `Factorization.projected`."""
        raise NotImplementedError

    def moments(self, solution: Solution, lams: Lams, changes: Changes, with_fixed: bool) -> LevelMoments:
        """See `LevelMoments`."""
        score = residual_products(self.structure, lams, solution)
        projected = self.projected(with_fixed)
        information = average_information(self.structure, self.quadratic, changes, score)
        return LevelMoments(tuple(tall_product(s, s) for s in score), projected, information)

    def modes(self, solution: Solution, lams: Lams, joint: Lams) -> Modes:
        """See `Factorization.modes`."""
        score = residual_products(self.structure, lams, solution)
        penalized = [j for j, term in enumerate(self.structure.gram.terms) if term.penalized]
        return modes_from([score[j] for j in penalized], tuple(lams[j] for j in penalized), joint[: len(penalized)])

    def product(self, effects: Terms) -> Terms:
        """See `WorkingFactorization.product`."""
        return tuple(w[:, :, 0] for w in multiply(self.structure, tuple(e[:, :, None] for e in effects)))

    def difference(self, rhs: Terms, effects: Terms, tau: np.ndarray) -> Terms:
        """rhs - Z'W (Z effects + X tau) by subtraction, (q, k) per term."""
        pairs = zip(rhs, self.product(effects), self.structure.gram.terms, strict=True)
        return tuple(r - w - t.dense[:, :, :-1] @ tau for r, w, t in pairs)


class DriverLevels:
    """The part of a `Solver` that reads a Gram with all its levels."""

    gram: Gram

    def start(self, covariances: ModelCovariance) -> np.ndarray:
        """See `moment_start`."""
        return moment_start(self.gram, covariances)

    def squares(self) -> tuple[np.ndarray, ...]:
        """See `Solver.squares`."""
        return level_squares(self.gram)

    def level_counts(self) -> tuple[int, ...]:
        """See `Solver.level_counts`."""
        # An entry of a compressed Gram stands for `multiplicity` levels of the data, not always a whole number.
        terms = (term for term in self.gram.terms if term.penalized)
        return tuple(t.n_levels if t.multiplicity is None else int(t.multiplicity.sum()) for t in terms)

    def compressed(self) -> Gram | None:
        """See `Solver.compressed`."""
        small = compress(self.gram)
        return None if small is self.gram else small


def modes_from(scores: Sequence[np.ndarray], lams: Lams, joint: Lams) -> Modes:
    """u = Lambda's and b = lambda u from the scores of the penalized terms; lams in the working basis."""
    # The normal equations read u = Lambda's, so no inverse of a possibly singular Lambda is needed.
    u = tuple(score @ lam for score, lam in zip(scores, lams, strict=True))
    return Modes(u, tuple(u_j @ lam.T for u_j, lam in zip(u, joint, strict=True)))
